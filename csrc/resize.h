// Resizing along one axis, half-pixel centres: exact area average when shrinking, bilinear when
// enlarging. All positions are exact integers (in units of 1/target or 1/(2 target) of a sample), so the
// CPU's tables and a CUDA thread's own computation agree to the bit.
#pragma once
#include "common.h"

namespace banet {

// The samples that make target sample `index`: weights are tap_weight(first .. first + count - 1).
struct Taps {
  int first;
  int count;
};

BANET_HD Taps resize_taps(int index, int source, int target) {
  if (source > target) {
    const int64_t low = static_cast<int64_t>(index) * source;
    const int first = static_cast<int>(low / target);
    return {first, static_cast<int>((low + source - 1) / target) - first + 1};
  }
  if (source == 1) return {0, 1};
  const int64_t position = static_cast<int64_t>(2 * index + 1) * source - target;  // * 1/(2 target)
  const int whole = position <= 0 ? 0 : static_cast<int>(position / (2 * static_cast<int64_t>(target)));
  return {least(whole, source - 2), 2};
}

BANET_HD float tap_weight(int index, int tap, int source, int target) {
  if (source > target) {
    const int64_t low = most(static_cast<int64_t>(index) * source, static_cast<int64_t>(tap) * target);
    const int64_t high =
        least(static_cast<int64_t>(index + 1) * source, static_cast<int64_t>(tap + 1) * target);
    return high > low ? static_cast<float>(high - low) / static_cast<float>(source) : 0.0f;
  }
  const int64_t unit = 2 * static_cast<int64_t>(target);
  const int64_t position = clamp(static_cast<int64_t>(2 * index + 1) * source - target, static_cast<int64_t>(0),
                                 static_cast<int64_t>(source - 1) * unit);
  const int64_t distance = most(position - tap * unit, tap * unit - position);
  return distance < unit ? static_cast<float>(unit - distance) / static_cast<float>(unit) : 0.0f;
}

// --- for CUDA threads: one value at a time -------------------------------------------------------------

// A plane's samples as float: uint8, or int16 where `wide`. Strides count samples.
struct Samples {
  const void* data;
  int64_t stride, step;
  bool wide;

  BANET_HD float operator()(int y, int x) const {
    const int64_t at = y * stride + x * step;
    return wide ? static_cast<float>(static_cast<const int16_t*>(data)[at])
                : static_cast<float>(static_cast<const uint8_t*>(data)[at]);
  }
};

// A dense [h, w] plane of floats.
struct Floats {
  const float* data;
  int width;

  BANET_HD float operator()(int y, int x) const { return data[static_cast<int64_t>(y) * width + x]; }
};

// The same for alpha as given.
struct CleanFloats {
  const float* data;
  int width;

  BANET_HD float operator()(int y, int x) const {
    return clean_alpha(data[static_cast<int64_t>(y) * width + x]);
  }
};

// Sample (row, column) of `at` resized from `source` to `target`.
struct Size {
  int height, width;
};

template <typename At>
BANET_HD float resample(const At& at, Size source, Size target, int row, int column) {
  const Taps rows = resize_taps(row, source.height, target.height);
  const Taps columns = resize_taps(column, source.width, target.width);
  float sum = 0.0f;
  for (int y = rows.first; y < rows.first + rows.count; ++y) {
    float line = 0.0f;
    for (int x = columns.first; x < columns.first + columns.count; ++x) {
      line += tap_weight(column, x, source.width, target.width) * at(y, x);
    }
    sum += tap_weight(row, y, source.height, target.height) * line;
  }
  return sum;
}

}  // namespace banet
