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

BANET_CLONES void moments_line(float* __restrict out, const float* __restrict alpha,
                               const float* __restrict guide, float peak, int width) {
  for (int x = 0; x < width; ++x) {
    const float g = guide[x] / peak, a = alpha[x];
    out[4 * x] = g, out[4 * x + 1] = a, out[4 * x + 2] = g * a, out[4 * x + 3] = g * g;
  }
}

BANET_CLONES void fit_line(float* __restrict out, const float* __restrict moments, float epsilon, int width) {
  for (int x = 0; x < width; ++x) {
    const float* m = moments + 4 * x;
    const Fit fit = fit_alpha(m[0], m[1], m[2], m[3], epsilon);
    out[2 * x] = fit.slope, out[2 * x + 1] = fit.offset;
  }
}

BANET_CLONES void split_line(float* __restrict slope, float* __restrict offset, const float* __restrict fits,
                             int width) {
  for (int x = 0; x < width; ++x) slope[x] = fits[2 * x], offset[x] = fits[2 * x + 1];
}

BANET_CLONES void certainty_line(uint8_t* __restrict state, const float* __restrict slope,
                                 const float* __restrict offset, float floor, float ceiling, int width) {
  for (int x = 0; x < width; ++x) state[x] = certainty(slope[x], offset[x], floor, ceiling);
}

static void guided_field(const AlphaField& field, const float* alpha, const float* guide, float peak,
                         const AlphaOptions& options) {
  const int h = field.height, w = field.width, radius = options.radius;
  const size_t pixels = static_cast<size_t>(h) * w;
  float* moments = scratch<float, 10>(6 * pixels);
  float* fits = moments + 4 * pixels;
  parallel_blocks(h, matte_block, [&](int begin, int end) {
    float* line = scratch<float, 2>(4 * w);
    for (int y = begin; y < end; ++y) {
      const size_t at = static_cast<size_t>(y) * w;
      moments_line(line, alpha + at, guide + at, peak, w);
      box_line_4(moments + 4 * at, line, w, radius, 0, w);
    }
  });
  parallel_blocks(h, matte_block, [&](int begin, int end) {
    float* line = scratch<float, 2>(2 * w);
    const auto row = [&](int y) { return moments + 4 * static_cast<size_t>(y) * w; };
    box_rows(row, h, 4 * w, radius, begin, end, [&](int y, const float* mean) {
      fit_line(line, mean, options.epsilon, w);
      box_line_2(fits + 2 * static_cast<size_t>(y) * w, line, w, radius, 0, w);
    });
  });
  parallel_blocks(h, matte_block, [&](int begin, int end) {
    const auto row = [&](int y) { return fits + 2 * static_cast<size_t>(y) * w; };
    box_rows(row, h, 2 * w, radius, begin, end, [&](int y, const float* mean) {
      const size_t at = static_cast<size_t>(y) * w;
      split_line(field.slope + at, field.offset + at, mean, w);
      certainty_line(field.state + at, field.slope + at, field.offset + at, options.floor, options.ceiling, w);
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

void enlarge_pair(float* out_a, float* out_b, const Plane<float>& a, const Plane<float>& b, const Axis& rows,
                  const Axis& columns, int row, int begin, int end) {
  float* line = scratch<float, 3>(a.width);
  const int from = columns.first[begin], to = columns.first[end - 1] + columns.count;
  combine_rows(line, a, rows, row, from, to);
  combine_taps(out_a - begin, line, columns, begin, end);
  combine_rows(line, b, rows, row, from, to);
  combine_taps(out_b - begin, line, columns, begin, end);
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
