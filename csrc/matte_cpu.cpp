// See matte_cpu.h.
#include "matte_cpu.h"

namespace banet {

BANET_CLONES void clean_line(float* __restrict out, const float* __restrict row, int64_t step, int width) {
  if (step == 1) for (int x = 0; x < width; ++x) out[x] = clean_alpha(row[x]);
  else for (int x = 0; x < width; ++x) out[x] = clean_alpha(row[x * step]);
}

void load_alpha(float* out, const Plane<float>& alpha) {
  for (int y = 0; y < alpha.height; ++y, out += alpha.width) {
    clean_line(out, alpha.row(y), alpha.step, alpha.width);
  }
}

template <typename T>
void shrink(float* out, const Plane<T>& plane, int height, int width) {
  const auto rows = axis(plane.height, height), columns = axis(plane.width, width);
  parallel_blocks(height, 16, [&](int begin, int end) {
    float* line = scratch<float, 2>(plane.width);
    for (int y = begin; y < end; ++y) {
      combine_rows(line, plane, *rows, y, 0, plane.width);
      combine_taps(out + static_cast<int64_t>(y) * width, line, *columns, 0, width);
    }
  });
}

template void shrink(float*, const Plane<uint8_t>&, int, int);
template void shrink(float*, const Plane<int16_t>&, int, int);
template void shrink(float*, const Plane<float>&, int, int);

// --- guided filter -----------------------------------------------------------------------------------------

BANET_CLONES void scale_line(float* __restrict out, const float* __restrict guide, float peak, int width) {
  for (int x = 0; x < width; ++x) out[x] = guide[x] / peak;
}

namespace {

template <int known>
inline __attribute__((always_inline)) void deviations(float* __restrict covariance, float* __restrict variance,
                                                      const float* __restrict mean,
                                                      const float* __restrict mean_alpha,
                                                      const float* __restrict guide, const float* __restrict alpha,
                                                      int any, int begin, int end, int width) {
  const int radius = known ? known : any;
  for (int x = begin; x < end; ++x) {
    float product = 0.0f, square = 0.0f;
    for (int k = -radius; k <= radius; ++k) {
      if (!known && (x + k < 0 || x + k >= width)) continue;
      const float g = guide[x + k] - mean[x], a = alpha[x + k] - mean_alpha[x];
      product += g * a, square += g * g;
    }
    covariance[x] += product, variance[x] += square;
  }
}

}  // namespace

// One row's share of the sums of deviations' products, for the windows of a line of pixels with these means.
BANET_CLONES void add_deviations(float* covariance, float* variance, const float* mean, const float* mean_alpha,
                                 const float* guide, const float* alpha, int radius, int width) {
  if (radius == 1 && width > 2) {  // the product's
    deviations<0>(covariance, variance, mean, mean_alpha, guide, alpha, radius, 0, 1, width);
    deviations<1>(covariance, variance, mean, mean_alpha, guide, alpha, radius, 1, width - 1, width);
    deviations<0>(covariance, variance, mean, mean_alpha, guide, alpha, radius, width - 1, width, width);
  } else {
    deviations<0>(covariance, variance, mean, mean_alpha, guide, alpha, radius, 0, width, width);
  }
}

// The sums are of `rows` rows.
BANET_CLONES void fit_line(float* __restrict slope, float* __restrict offset, const float* __restrict mean,
                           const float* __restrict mean_alpha, const float* __restrict covariance,
                           const float* __restrict variance, int rows, int radius, float epsilon, int width) {
  for (int x = 0; x < width; ++x) {
    const int columns = least(x + radius, width - 1) - most(x - radius, 0) + 1;
    const float share = 1.0f / static_cast<float>(rows * columns);
    const Fit fit = fit_alpha(mean[x], mean_alpha[x], covariance[x] * share, variance[x] * share, epsilon);
    slope[x] = fit.slope, offset[x] = fit.offset;
  }
}

BANET_CLONES void certainty_line(uint8_t* __restrict state, const float* __restrict slope,
                                 const float* __restrict offset, float floor, float ceiling, int width) {
  for (int x = 0; x < width; ++x) state[x] = certainty(slope[x], offset[x], floor, ceiling);
}

// A block of rows at a time, with what the windows need above and below, so that all of it stays in the cache.
static void guided_field(const AlphaField& field, const float* alpha, const float* guide, float peak,
                         const AlphaOptions& options) {
  const int h = field.height, w = field.width, radius = options.radius, pitch = w + apart;
  parallel_blocks(h, matte_block, [&](int begin, int end) {
    const int top = most(begin - 2 * radius, 0), bottom = least(end + 2 * radius, h);
    const size_t rows = bottom - top;
    float* pairs = scratch<float, 10>((4 * rows + 2) * pitch);  // rows of guide and alpha
    float* fits = pairs + 2 * rows * pitch;                     // rows of slopes and offsets
    float* covariance = fits + 2 * rows * pitch;
    float* variance = covariance + pitch;
    const auto pairs_of = [&](int y) { return pairs + 2 * static_cast<size_t>(y - top) * pitch; };
    const auto fits_of = [&](int y) { return fits + 2 * static_cast<size_t>(y - top) * pitch; };
    for (int y = top; y < bottom; ++y) {
      const size_t at = static_cast<size_t>(y) * w;
      scale_line(pairs_of(y), guide + at, peak, w);
      std::copy(alpha + at, alpha + at + w, pairs_of(y) + pitch);
    }
    const int fits_begin = most(begin - radius, 0), fits_end = least(end + radius, h);
    box_means(pairs_of, 2, pitch, h, w, radius, fits_begin, fits_end, [&](int y, const float* mean) {
      const int first = most(y - radius, 0), last = least(y + radius + 1, h);
      std::fill(covariance, variance + pitch, 0.0f);
      for (int i = first; i < last; ++i) {
        add_deviations(covariance, variance, mean, mean + pitch, pairs_of(i), pairs_of(i) + pitch, radius, w);
      }
      fit_line(fits_of(y), fits_of(y) + pitch, mean, mean + pitch, covariance, variance, last - first, radius,
               options.epsilon, w);
    });
    box_means(fits_of, 2, pitch, h, w, radius, begin, end, [&](int y, const float* mean) {
      const size_t at = static_cast<size_t>(y) * w;
      certainty_line(field.state + at, mean, mean + pitch, options.floor, options.ceiling, w);
      std::copy(mean, mean + w, field.slope + at);
      std::copy(mean + pitch, mean + pitch + w, field.offset + at);
    });
  });
}

AlphaField alpha_field(const float* alpha, const float* guide, float peak, int height, int width,
                       const AlphaOptions& options) {
  const size_t pixels = static_cast<size_t>(height) * width;
  float* memory = scratch<float, 11>(2 * pixels);
  const AlphaField field{height, width, memory, memory + pixels, scratch<uint8_t, 0>(pixels)};
  if (options.guided) {
    guided_field(field, alpha, guide, peak, options);
  } else {
    std::fill(field.slope, field.slope + pixels, 0.0f);
    std::copy(alpha, alpha + pixels, field.offset);
    certainty_line(field.state, field.slope, field.offset, options.floor, options.ceiling,
                   static_cast<int>(pixels));
  }
  return field;
}

Window soft_window(const AlphaField& field, int margin) {
  const int h = field.height, w = field.width;
  Window window{h, 0, w, 0};
  for (int y = 0; y < h; ++y) {
    const uint8_t* row = field.state + static_cast<size_t>(y) * w;
    const uint8_t* below = y + 1 < h ? row + w : row;
    // Certain neighbours that disagree are soft between them.
    const auto soft = [&](int x) { return !(row[x] & row[least(x + 1, w - 1)] & below[x]); };
    int left = 0, right = w;
    while (left < w && !soft(left)) ++left;
    if (left == w) continue;
    while (!soft(right - 1)) --right;
    window = {least(window.top, y), y + 1, least(window.left, left), most(window.right, right)};
  }
  // One more on the right and below: the neighbour that disagreed.
  return {most(window.top - margin, 0), least(window.bottom + margin + 1, h), most(window.left - margin, 0),
          least(window.right + margin + 1, w)};
}

// --- full size ---------------------------------------------------------------------------------------------

void enlarge(float* out, const Plane<float>& plane, const Axis& rows, const Axis& columns, int row, int begin,
             int end) {
  float* line = scratch<float, 3>(plane.width);
  combine_rows(line, plane, rows, row, columns.first[begin], columns.first[end - 1] + columns.count);
  combine_taps(out - begin, line, columns, begin, end);
}

namespace {

template <typename T>
inline __attribute__((always_inline)) void soft_line(float* __restrict out, const float* __restrict slope,
                                                     const float* __restrict offset,
                                                     const T* __restrict luma, float peak, float floor,
                                                     float ceiling, int count) {
  for (int x = 0; x < count; ++x) {
    out[x] = apply_fit(slope[x], offset[x], static_cast<float>(luma[x]) / peak, floor, ceiling);
  }
}

}  // namespace

BANET_CLONES void soft_u8(float* out, const float* slope, const float* offset, const uint8_t* luma, float peak,
                          float floor, float ceiling, int count) {
  soft_line(out, slope, offset, luma, peak, floor, ceiling, count);
}
BANET_CLONES void soft_i16(float* out, const float* slope, const float* offset, const int16_t* luma,
                           float peak, float floor, float ceiling, int count) {
  soft_line(out, slope, offset, luma, peak, floor, ceiling, count);
}

void soft_alpha(float* out, const float* slope, const float* offset, const uint8_t* luma, float peak,
                float floor, float ceiling, int count) {
  soft_u8(out, slope, offset, luma, peak, floor, ceiling, count);
}
void soft_alpha(float* out, const float* slope, const float* offset, const int16_t* luma, float peak,
                float floor, float ceiling, int count) {
  soft_i16(out, slope, offset, luma, peak, floor, ceiling, count);
}

BANET_CLONES void keep_common(uint8_t* __restrict states, const uint8_t* __restrict others, int count) {
  for (int x = 0; x < count; ++x) states[x] &= others[x];
}

// states[x] &= states[x + 1], ascending: each reads its neighbour before that one changes.
BANET_CLONES void keep_common_shifted(uint8_t* states, int count) {
  for (int x = 0; x < count; ++x) states[x] &= states[x + 1];
}

SpanWalk::SpanWalk(const AlphaField& field, const Axis& rows, const Axis& columns)
    : field_(field), rows_(rows), columns_(columns), starts_(field.width + 1) {
  int x = 0;
  for (int j = 0; j <= field.width; ++j) {
    while (x < columns.target && columns.first[x] < j) ++x;
    starts_[j] = x;
  }
}

const std::vector<Span>& SpanWalk::spans(int begin, int end) const {
  static thread_local std::vector<Span> found;
  const int width = field_.width, last = width - columns_.count;
  uint8_t* common = scratch<uint8_t, 1>(width + 1);
  std::fill(common, common + width, surely_background | surely_subject);
  for (int i = rows_.first[begin]; i < rows_.first[end - 1] + rows_.count; ++i) {
    keep_common(common, field_.state + static_cast<size_t>(i) * width, width);
  }
  // To the right in place: after n rounds common[j] covers columns j .. j + n.
  for (int k = 1; k < columns_.count; ++k) keep_common_shifted(common, width - k);
  found.clear();
  for (int j = 0; j <= last;) {
    int next = j + 1;
    while (next <= last && common[next] == common[j]) ++next;
    const int from = starts_[j], to = next > last ? columns_.target : starts_[next];
    if (from < to) found.push_back({from, to, common[j]});
    j = next;
  }
  return found;
}

}  // namespace banet
