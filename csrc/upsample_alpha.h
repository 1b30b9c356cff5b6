// Guided alpha upsampling, per pixel: the fast guided filter (He and Sun 2015) fits
// alpha = slope * luma + offset in small windows of the matte; slope and offset are enlarged and applied
// to the full-size luma.
#pragma once
#include "common.h"
#include "resize.h"
#include "windows.h"

namespace banet {

struct Fit {
  float slope, offset;
};

// From the means over a window of guide and alpha, and of the products of their deviations: sums of squares
// less squares of sums would lose in float what the division by a small variance needs.
BANET_HD Fit fit_alpha(float mean, float mean_alpha, float covariance, float variance, float epsilon) {
  const float slope = covariance / (variance + epsilon);
  return {slope, mean_alpha - slope * mean};
}

// What is below `floor` or above `ceiling` leaves as exactly 0 or 1.
BANET_HD float apply_fit(float slope, float offset, float luma, float floor, float ceiling) {
  return clamp((slope * luma + offset - floor) / (ceiling - floor), 0.0f, 1.0f);
}

// Whether a fit gives exactly 0 or exactly 1 for every luma in 0..1. Enlarging is a convex combination, so
// a pixel whose fits all agree needs no arithmetic. The margin is far above float rounding.
constexpr uint8_t surely_background = 1, surely_subject = 2;

BANET_HD uint8_t certainty(float slope, float offset, float floor, float ceiling) {
  constexpr float margin = 1e-5f;
  const float low = offset + least(slope, 0.0f), high = offset + most(slope, 0.0f);
  return (high <= floor - margin ? surely_background : 0) | (low >= ceiling + margin ? surely_subject : 0);
}

// --- for CUDA threads: whole windows; kernels can't be shared between files that NVRTC compiles alone -----

BANET_HD Fit fit_window(const float* alpha, const float* guide, float peak, Size size, int row, int column,
                        int radius, float epsilon) {
  const Range rows = window_range(row, radius, size.height), columns = window_range(column, radius, size.width);
  const float share = 1.0f / static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
  float mean = 0.0f, mean_alpha = 0.0f, covariance = 0.0f, variance = 0.0f;
  for (int y = rows.begin; y < rows.end; ++y) {
    for (int x = columns.begin; x < columns.end; ++x) {
      const int64_t at = static_cast<int64_t>(y) * size.width + x;
      mean += guide[at] / peak * share, mean_alpha += alpha[at] * share;
    }
  }
  for (int y = rows.begin; y < rows.end; ++y) {
    for (int x = columns.begin; x < columns.end; ++x) {
      const int64_t at = static_cast<int64_t>(y) * size.width + x;
      const float g = guide[at] / peak - mean, a = alpha[at] - mean_alpha;
      covariance += g * a * share, variance += g * g * share;
    }
  }
  return fit_alpha(mean, mean_alpha, covariance, variance, epsilon);
}

// Pixel i of the matte, cleaned, and of the luma at its size.
BANET_HD void shrink_pixel(float* clean, float* small, Size size, const float* alpha, int64_t stride, int64_t step,
                           const Samples& luma, Size luma_size, int64_t i) {
  const int row = static_cast<int>(i / size.width), column = static_cast<int>(i % size.width);
  clean[i] = clean_alpha(alpha[row * stride + column * step]);
  small[i] = resample(luma, luma_size, size, row, column);
}

// fits: slopes, then offsets, [2, h, w]; not guided: slope 0, offset alpha.
BANET_HD void fit_pixel(float* fits, const float* clean, const float* small, float peak, Size size, bool guided,
                        int radius, float epsilon, int64_t i) {
  const int row = static_cast<int>(i / size.width), column = static_cast<int>(i % size.width);
  const Fit fit = guided ? fit_window(clean, small, peak, size, row, column, radius, epsilon) : Fit{0.0f, clean[i]};
  fits[i] = fit.slope, fits[static_cast<int64_t>(size.height) * size.width + i] = fit.offset;
}

BANET_HD void mean_pixel(float* means, const float* fits, Size size, int radius, int64_t i) {
  const int64_t pixels = static_cast<int64_t>(size.height) * size.width;
  const int row = static_cast<int>(i / size.width), column = static_cast<int>(i % size.width);
  means[i] = mean_window(fits, size, row, column, radius);
  means[pixels + i] = mean_window(fits + pixels, size, row, column, radius);
}

}  // namespace banet
