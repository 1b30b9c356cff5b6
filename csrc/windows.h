// Square windows around a pixel, cut at the border, for CUDA threads: the windows are small, so a thread reads its
// own; the CPU runs sums instead.
#pragma once
#include "resize.h"

namespace banet {

struct Range {
  int begin, end;
};

BANET_HD Range window_range(int centre, int radius, int size) {
  return {most(centre - radius, 0), least(centre + radius + 1, size)};
}

BANET_HD float mean_window(const float* values, Size size, int row, int column, int radius) {
  const Range rows = window_range(row, radius, size.height), columns = window_range(column, radius, size.width);
  float sum = 0.0f;
  for (int y = rows.begin; y < rows.end; ++y) {
    for (int x = columns.begin; x < columns.end; ++x) sum += values[static_cast<int64_t>(y) * size.width + x];
  }
  return sum / static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
}

}  // namespace banet
