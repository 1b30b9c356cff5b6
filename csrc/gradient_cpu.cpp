// See gradient_cpu.h.
#include "gradient_cpu.h"

namespace banet {

namespace {

template <typename R>
inline __attribute__((always_inline)) void polars(R* __restrict magnitude, R* __restrict x, R* __restrict y,
                                                  const R* __restrict above, const R* __restrict row,
                                                  const R* __restrict below, int width) {
  for (int i = 0; i < width; ++i) {
    const Polar<R> p = polar(sobel(above[i - 1], above[i], above[i + 1], row[i - 1], row[i + 1], below[i - 1],
                                   below[i], below[i + 1]));
    magnitude[i] = p.magnitude, x[i] = p.x, y[i] = p.y;
  }
}

// out[i] += the adjoint at the padded pixel whose neighbours' rows are given.
template <typename R>
inline __attribute__((always_inline)) void add_adjoint(R* __restrict out, const R* __restrict above_x,
                                                       const R* __restrict row_x, const R* __restrict below_x,
                                                       const R* __restrict above_y, const R* __restrict below_y,
                                                       int width) {
  for (int i = 0; i < width; ++i) {
    out[i] += sobel_backward(above_x[i - 1], above_x[i + 1], row_x[i - 1], row_x[i + 1], below_x[i - 1],
                             below_x[i + 1], above_y[i - 1], above_y[i], above_y[i + 1], below_y[i - 1],
                             below_y[i], below_y[i + 1]);
  }
}

template <typename R>
inline __attribute__((always_inline)) void add_channel(R* __restrict out, const R* __restrict channel, R weight,
                                                       int width) {
  for (int i = 0; i < width; ++i) out[i] += weight * channel[i];
}

template <typename R>
inline __attribute__((always_inline)) void normal_line(R* __restrict row, Normal<R> normal, int width) {
  for (int i = 0; i < width; ++i) row[i] = normal.of(row[i]);
}

// What is no number is neither smaller nor larger, and gets lost: `nothing` becomes NaN where a value is NaN or
// infinite, stays 0 else, and is to be added once all rows are through.
template <typename R>
inline __attribute__((always_inline)) void extremes(R& low, R& high, R& nothing, const R* __restrict row,
                                                    int width) {
  R least_of = row[0], most_of = row[0], none = R(0);
  for (int i = 0; i < width; ++i) {
    least_of = row[i] < least_of ? row[i] : least_of;
    most_of = row[i] > most_of ? row[i] : most_of;
  }
  for (int i = 0; i < width; ++i) none += row[i] * R(0);
  low = least(low, least_of), high = most(high, most_of), nothing += none;
}

}  // namespace

BANET_CLONES void polar_line(float* magnitude, float* x, float* y, const float* above, const float* row,
                             const float* below, int width) {
  polars(magnitude, x, y, above, row, below, width);
}
BANET_CLONES void polar_line(double* magnitude, double* x, double* y, const double* above, const double* row,
                             const double* below, int width) {
  polars(magnitude, x, y, above, row, below, width);
}
BANET_CLONES void adjoint_line(float* out, const float* above_x, const float* row_x, const float* below_x,
                               const float* above_y, const float* below_y, int width) {
  add_adjoint(out, above_x, row_x, below_x, above_y, below_y, width);
}
void adjoint_line(double* out, const double* above_x, const double* row_x, const double* below_x,
                  const double* above_y, const double* below_y, int width) {
  add_adjoint(out, above_x, row_x, below_x, above_y, below_y, width);
}
BANET_CLONES void channel_line(float* out, const float* channel, float weight, int width) {
  add_channel(out, channel, weight, width);
}
void channel_line(double* out, const double* channel, double weight, int width) {
  add_channel(out, channel, weight, width);
}
BANET_CLONES void scale_line(float* row, Normal<float> normal, int width) { normal_line(row, normal, width); }
void scale_line(double* row, Normal<double> normal, int width) { normal_line(row, normal, width); }

BANET_CLONES void extreme_line(float& low, float& high, float& nothing, const float* row, int width) {
  extremes(low, high, nothing, row, width);
}
void extreme_line(double& low, double& high, double& nothing, const double* row, int width) {
  extremes(low, high, nothing, row, width);
}

template <typename R>
void normalise_row(R* row, Normal<R> normal, int width) {
  scale_line(row, normal, width);
  row[-1] = row[0], row[width] = row[width - 1];
}

template <typename R>
Normalised<R> luminance(const Pixels<R>& image, R* memory) {
  const int height = image.height, width = image.width, blocks = (height + gradient_block - 1) / gradient_block;
  Normalised<R> result{memory, height, width, R(0), R(0), {R(0), R(0)}};
  R* bounds = scratch<R, 20>(2 * blocks);
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    R low = R(0), high = R(0), nothing = R(0);
    for (int y = begin; y < end; ++y) {
      R* row = result.row(y);
      std::fill(row, row + width, R(0));
      for (int c = 0; c < image.channels; ++c) {
        const R* channel = image.data + (static_cast<int64_t>(c) * height + y) * width;
        channel_line(row, channel, channel_weight<R>(c, image.channels), width);
      }
      if (y == begin) low = high = row[0];
      extreme_line(low, high, nothing, row, width);
    }
    R* pair = bounds + 2 * (begin / gradient_block);
    pair[0] = low + nothing, pair[1] = high + nothing;
  });
  R rest = R(0);
  result.low = bounds[0], result.high = bounds[1];
  for (int i = 0; i < blocks; ++i) {
    result.low = least(result.low, bounds[2 * i]), result.high = most(result.high, bounds[2 * i + 1]);
    rest += bounds[2 * i] * R(0) + bounds[2 * i + 1] * R(0);
  }
  result.normal = normal_of(result.low + rest, result.high + rest);
  return result;
}

template <typename R>
Normalised<R> normalise(const Pixels<R>& image, R* memory) {
  const int height = image.height, width = image.width;
  const Normalised<R> result = luminance(image, memory);
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) normalise_row(result.row(y), result.normal, width);
  });
  std::copy(result.row(0) - 1, result.row(0) + width + 1, result.row(-1) - 1);
  std::copy(result.row(height - 1) - 1, result.row(height - 1) + width + 1, result.row(height) - 1);
  return result;
}

namespace {

// Row y of d loss / d normalised luminance into `sums` [width + 2], its first at x = -1; the repeated edges
// are folded back onto the pixels they repeat.
template <typename R>
void normalised_backward(R* sums, const GradientPlane<R>& g, int y) {
  const int width = g.width;
  std::fill(sums, sums + width + 2, R(0));
  for (int row = y == 0 ? -1 : y; row <= (y == g.height - 1 ? g.height : y); ++row) {
    adjoint_line(sums, g.row(0, row - 1) - 1, g.row(0, row) - 1, g.row(0, row + 1) - 1, g.row(1, row - 1) - 1,
                 g.row(1, row + 1) - 1, width + 2);
  }
  sums[1] += sums[0], sums[width] += sums[width + 1];
}

// Sums over the image that the minimum's and the maximum's pixels get, and how many they are. In double:
// they are sums of a whole image.
struct ExtremeSums {
  double low = 0, high = 0;
  int64_t lowest = 0, highest = 0;
};

}  // namespace

template <typename R>
void gradient_backward(R* out, const GradientPlane<R>& gradients, const Normalised<R>& normalised, int channels) {
  const int height = gradients.height, width = gradients.width;
  const size_t pixels = static_cast<size_t>(height) * width;
  const Normal<R> normal = normalised.normal;
  if (!(normal.scale > R(0))) {
    std::fill(out, out + channels * pixels, R(0));
    return;
  }
  R* back = scratch<R, 21>(pixels);
  const int blocks = (height + gradient_block - 1) / gradient_block;
  std::vector<ExtremeSums> parts(blocks);
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    R* sums = scratch<R, 2>(width + 2);
    ExtremeSums part;
    for (int y = begin; y < end; ++y) {
      normalised_backward(sums, gradients, y);
      const R* value = normalised.row(y);
      for (int x = 0; x < width; ++x) {
        part.low += sums[x + 1] * (value[x] - R(1)), part.high -= sums[x + 1] * value[x];
        part.lowest += value[x] == R(0), part.highest += value[x] == normal.of(normalised.high);
      }
      std::copy(sums + 1, sums + 1 + width, back + static_cast<int64_t>(y) * width);
    }
    parts[begin / gradient_block] = part;
  });
  ExtremeSums total;
  for (const ExtremeSums& part : parts) {
    total.low += part.low, total.high += part.high;
    total.lowest += part.lowest, total.highest += part.highest;
  }
  const R low = static_cast<R>(total.low / total.lowest), high = static_cast<R>(total.high / total.highest);
  const R top = normal.of(normalised.high);
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      const R* value = normalised.row(y);
      R* row = back + static_cast<int64_t>(y) * width;
      for (int x = 0; x < width; ++x) {
        const R extreme = (value[x] == R(0) ? low : R(0)) + (value[x] == top ? high : R(0));
        row[x] = (row[x] + extreme) * normal.scale;
      }
      for (int c = 0; c < channels; ++c) {
        R* to = out + c * pixels + static_cast<int64_t>(y) * width;
        std::fill(to, to + width, R(0));
        channel_line(to, row, channel_weight<R>(c, channels), width);
      }
    }
  });
}

template void normalise_row(float*, Normal<float>, int);
template void normalise_row(double*, Normal<double>, int);
template Normalised<float> luminance(const Pixels<float>&, float*);
template Normalised<double> luminance(const Pixels<double>&, double*);
template Normalised<float> normalise(const Pixels<float>&, float*);
template Normalised<double> normalise(const Pixels<double>&, double*);
template void gradient_backward(float*, const GradientPlane<float>&, const Normalised<float>&, int);
template void gradient_backward(double*, const GradientPlane<double>&, const Normalised<double>&, int);

}  // namespace banet
