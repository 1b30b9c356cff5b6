// masked_blur on the CPU, one plane: shrunk until the Gaussian is about 2 samples wide, convolved as
// (colour * weight, weight), divided, enlarged. The cost does not depend on sigma.
#include "masked_blur.h"

#include "matte_cpu.h"

namespace banet {

BANET_CLONES void weight_line(float* __restrict weighted, float* __restrict weight,
                              const float* __restrict colour, float trace, int width) {
  for (int x = 0; x < width; ++x) {
    weight[x] = blur_weight(weight[x], trace);
    weighted[x] = colour[x] * weight[x];
  }
}

// Along a line padded by `radius` on both sides; the taps are symmetric.
BANET_CLONES void gaussian_line(float* __restrict out, const float* __restrict padded,
                                const float* __restrict taps, int radius, int width) {
  for (int x = 0; x < width; ++x) out[x] = taps[radius] * padded[x + radius];
  for (int k = 0; k < radius; ++k) {
    const float tap = taps[k];
    for (int x = 0; x < width; ++x) out[x] += tap * (padded[x + k] + padded[x + 2 * radius - k]);
  }
}

BANET_CLONES void add_rows(float* __restrict out, const float* __restrict a, const float* __restrict b,
                           float tap, int width) {
  for (int x = 0; x < width; ++x) out[x] += tap * (a[x] + b[x]);
}

BANET_CLONES void scale_row(float* __restrict out, const float* __restrict a, float tap, int width) {
  for (int x = 0; x < width; ++x) out[x] = tap * a[x];
}

BANET_CLONES void divide_line(float* __restrict out, const float* __restrict weight, int width) {
  for (int x = 0; x < width; ++x) out[x] /= weight[x];
}

namespace {

template <typename T>
inline __attribute__((always_inline)) void mix(T* __restrict out, const float* __restrict a,
                                               const float* __restrict b, float a_weight, float b_weight,
                                               float peak, int width) {
  for (int x = 0; x < width; ++x) {
    out[x] = static_cast<T>(quantise(a_weight * a[x] + b_weight * b[x], peak));
  }
}

}  // namespace

BANET_CLONES void mix_lines(uint8_t* out, const float* a, const float* b, float a_weight, float b_weight,
                            float peak, int width) {
  mix(out, a, b, a_weight, b_weight, peak, width);
}
BANET_CLONES void mix_lines(int16_t* out, const float* a, const float* b, float a_weight, float b_weight,
                            float peak, int width) {
  mix(out, a, b, a_weight, b_weight, peak, width);
}

namespace {

struct Small {
  int height, width;
  size_t pixels() const { return static_cast<size_t>(height) * width; }
};

// Row y of `from`, horizontally convolved; the edge sample repeats.
void blur_across(float* out, const float* row, const std::vector<float>& taps, int width) {
  const int radius = static_cast<int>(taps.size()) / 2;
  float* padded = scratch<float, 3>(width + 2 * radius);
  std::fill(padded, padded + radius, row[0]);
  std::copy(row, row + width, padded + radius);
  std::fill(padded + radius + width, padded + width + 2 * radius, row[width - 1]);
  gaussian_line(out, padded, taps.data(), radius, width);
}

void blur_down(float* out, const float* rows, const std::vector<float>& taps, int y, const Small& size) {
  const int radius = static_cast<int>(taps.size()) / 2;
  const auto row = [&](int at) {
    return rows + static_cast<size_t>(clamp(at, 0, size.height - 1)) * size.width;
  };
  scale_row(out, row(y), taps[radius], size.width);
  for (int k = 0; k < radius; ++k) add_rows(out, row(y - radius + k), row(y + radius - k), taps[k], size.width);
}

// mean: [small], the blurred colour.
template <typename T>
void blur_small(float* mean, const Plane<T>& plane, const Plane<float>& alpha, const Small& size,
                const std::vector<float>& taps, float trace) {
  float* across = scratch<float, 10>(2 * size.pixels());
  const auto rows = axis(plane.height, size.height), columns = axis(plane.width, size.width);
  const auto alpha_rows = axis(alpha.height, size.height), alpha_columns = axis(alpha.width, size.width);
  parallel_blocks(size.height, 8, [&](int begin, int end) {
    float* line = scratch<float, 2>(most(plane.width, alpha.width));
    float* small = scratch<float, 4>(3 * size.width);
    float *weight = small + size.width, *weighted = weight + size.width;
    for (int y = begin; y < end; ++y) {
      combine_rows(line, plane, *rows, y, 0, plane.width);
      combine_taps(small, line, *columns, 0, size.width);
      combine_rows(line, alpha, *alpha_rows, y, 0, alpha.width);
      combine_taps(weight, line, *alpha_columns, 0, size.width);
      weight_line(weighted, weight, small, trace, size.width);
      const size_t at = static_cast<size_t>(y) * size.width;
      blur_across(across + at, weighted, taps, size.width);
      blur_across(across + size.pixels() + at, weight, taps, size.width);
    }
  });
  parallel_blocks(size.height, 8, [&](int begin, int end) {
    float* weight = scratch<float, 2>(size.width);
    for (int y = begin; y < end; ++y) {
      float* row = mean + static_cast<size_t>(y) * size.width;
      blur_down(row, across, taps, y, size);
      blur_down(weight, across + size.pixels(), taps, y, size);
      divide_line(row, weight, size.width);
    }
  });
}

// Widens each small row once, then mixes the two that a row lies between.
template <typename T>
void enlarge(T* out, int height, int width, const float* mean, const Small& size, float peak) {
  const auto rows = axis(size.height, height), columns = axis(size.width, width);
  parallel_blocks(height, 48, [&](int begin, int end) {
    float* lines = scratch<float, 4>(2 * static_cast<size_t>(width));
    int held[2] = {-1, -1};
    for (int y = begin; y < end; ++y) {
      const int first = rows->first[y];
      for (int k = first; k < first + rows->count; ++k) {
        if (held[k & 1] == k) continue;
        combine_taps(lines + (k & 1) * width, mean + static_cast<size_t>(k) * size.width, *columns, 0, width);
        held[k & 1] = k;
      }
      const float first_weight = rows->weight[y], second_weight = rows->count == 2 ? rows->weight[height + y] : 0.0f;
      const float *a = lines + (first & 1) * width, *b = rows->count == 2 ? lines + (~first & 1) * width : a;
      mix_lines(out + static_cast<int64_t>(y) * width, a, b, first_weight, second_weight, peak, width);
    }
  });
}

template <typename T>
void blur(T* out, const Plane<T>& plane, const Plane<float>& alpha, const Small& size,
          const std::vector<float>& taps, float trace, float peak) {
  float* clean = scratch<float, 12>(static_cast<size_t>(alpha.height) * alpha.width);
  load_alpha(clean, alpha);
  float* mean = scratch<float, 11>(size.pixels());
  blur_small(mean, plane, {clean, alpha.height, alpha.width, alpha.width, 1}, size, taps, trace);
  enlarge(out, plane.height, plane.width, mean, size, peak);
}

}  // namespace

Tensor masked_blur_cpu(const Tensor& plane, const Tensor& alpha, int64_t depth, int64_t height, int64_t width,
                       double sigma, double trace) {
  check_plane("masked_blur", "planes", plane, depth == 8 ? ScalarType::Byte : ScalarType::Short);
  check_plane("masked_blur", "alpha", alpha, ScalarType::Float);
  STD_TORCH_CHECK(height > 0 && width > 0 && height <= plane.size(0) && width <= plane.size(1),
                  "masked_blur: the small size must be positive and not above the plane's");
  STD_TORCH_CHECK(sigma > 0 && sigma < 1000, "masked_blur: sigma must be positive and, at the small size, below 1000");
  const float width_of = static_cast<float>(sigma);
  const int radius = gaussian_radius(width_of);
  std::vector<float> weights(2 * radius + 1);
  for (int k = -radius; k <= radius; ++k) weights[k + radius] = gaussian_tap(k, width_of);
  const Small size{static_cast<int>(height), static_cast<int>(width)};
  const float peak = static_cast<float>((1 << depth) - 1);
  Tensor out = torch::stable::new_empty(plane, {plane.size(0), plane.size(1)});
  if (depth == 8) {
    blur(static_cast<uint8_t*>(out.mutable_data_ptr()), plane_of<uint8_t>(plane), plane_of<float>(alpha), size,
         weights, static_cast<float>(trace), peak);
  } else {
    blur(static_cast<int16_t*>(out.mutable_data_ptr()), plane_of<int16_t>(plane), plane_of<float>(alpha), size,
         weights, static_cast<float>(trace), peak);
  }
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) { m.impl("masked_blur", TORCH_BOX(&banet::masked_blur_cpu)); }
