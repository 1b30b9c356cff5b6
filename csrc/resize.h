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

}  // namespace banet
