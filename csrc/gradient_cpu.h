// What sobel_gradient and refine_loss share on the CPU: one image at a time, normalised into a padded
// plane, and the way back from its gradients.
#pragma once
#include "cpu.h"
#include "gradient_checks.h"
#include "sobel_gradient.h"

namespace banet {

constexpr int gradient_block = 32;

// [C, H, W] of one image.
template <typename R>
struct Pixels {
  const R* data;
  int channels, height, width;
};

// The normalised luminance with its edge repeated once around: [H + 2, W + 2].
template <typename R>
struct Normalised {
  R* data;  // the caller's, (H + 2) * (W + 2)
  int height, width;
  R low, high;
  Normal<R> normal;

  R* row(int y) const { return data + static_cast<int64_t>(y + 1) * (width + 2) + 1; }
};

template <typename R>
Normalised<R> normalise(const Pixels<R>& image, R* memory);

// Its rows as they are, with nothing around, and how they are to be normalised.
template <typename R>
Normalised<R> luminance(const Pixels<R>& image, R* memory);

// Normalises a row in place, and repeats its edges at -1 and `width`.
template <typename R>
void normalise_row(R* row, Normal<R> normal, int width);

// Polar gradients of row y, for every x.
void polar_line(float* magnitude, float* x, float* y, const float* above, const float* row, const float* below,
                int width);
void polar_line(double* magnitude, double* x, double* y, const double* above, const double* row,
                const double* below, int width);

// A plane of gradients' gradients with two zeros around: [H + 4, W + 4], x part then y part.
template <typename R>
struct GradientPlane {
  R* data;  // the caller's, 2 * (H + 4) * (W + 4)
  int height, width;

  R* row(int part, int y) const {
    return data + (static_cast<int64_t>(part) * (height + 4) + y + 2) * (width + 4) + 2;
  }
  size_t size() const { return 2 * static_cast<size_t>(height + 4) * (width + 4); }
  void clear() const { std::fill(data, data + size(), R(0)); }
};

// From d loss / d gradient of every pixel to d loss / d image, through Sobel, eq. (12) with its minimum and
// maximum (shared equally by the pixels that hold them), and the luminance.
template <typename R>
void gradient_backward(R* out, const GradientPlane<R>& gradients, const Normalised<R>& normalised, int channels);

template <typename R>
Pixels<R> pixels_of(const Tensor& t, int n) {
  const int channels = static_cast<int>(t.size(1)), height = static_cast<int>(t.size(2));
  const int width = static_cast<int>(t.size(3));
  return {static_cast<const R*>(t.const_data_ptr()) + static_cast<int64_t>(n) * channels * height * width,
          channels, height, width};
}

}  // namespace banet
