// composite on the CPU. At the matte's size: the guided fit, and at a quarter of it local colours. At full size:
// copies, but for the soft band, which alone is computed. Rows go by groups that share a chroma row.
#include "composite.h"

#include <cstring>

#include "local_colours.h"

namespace banet {

namespace {

struct Options {
  AlphaOptions alpha;
  ColourOptions colours;
  int horizontal, vertical;  // subsampling
  float peak;
};

}  // namespace

BANET_CLONES void cover_line(float* __restrict out, const float* __restrict luma, int luma_width,
                             int horizontal, int begin, int end) {
  if (horizontal == 1) {
    for (int x = begin; x < end; ++x) out[x - begin] = luma[x];
    return;
  }
  const int inner = least(end, luma_width / 2);  // the last column of an odd width has no right neighbour
  for (int x = begin; x < end; ++x) {
    if (x == 0 || x >= inner) {
      out[x - begin] = chroma_cover(luma[most(2 * x - 1, 0)], luma[2 * x], luma[least(2 * x + 1, luma_width - 1)]);
    }
  }
  for (int x = most(begin, 1); x < inner; ++x) {
    out[x - begin] = chroma_cover(luma[2 * x - 1], luma[2 * x], luma[2 * x + 1]);
  }
}

BANET_CLONES void average_line(float* __restrict out, const float* __restrict other, int count) {
  for (int x = 0; x < count; ++x) out[x] = (out[x] + other[x]) / 2.0f;
}

// A line of soft pixels: local colours are there or null.
struct LineColours {
  const float *subject = nullptr, *behind = nullptr, *ambient = nullptr;
  float light_wrap = 0.0f;
};

namespace {

template <bool decontaminate, bool wrap, typename T>
inline __attribute__((always_inline)) void blend_soft(T* __restrict out, const T* __restrict sample,
                                                      const T* __restrict background, const float* __restrict cover,
                                                      const float* __restrict subject, const float* __restrict behind,
                                                      const float* __restrict ambient, float light_wrap, float peak,
                                                      int count) {
  for (int x = 0; x < count; ++x) {
    float colour = sample[x];
    if (decontaminate) colour = decontaminated(colour, cover[x], subject[x], behind[x]);
    if (wrap) colour = wrapped(colour, ambient[x], cover[x], light_wrap);
    out[x] = static_cast<T>(quantise(blend(colour, background[x], cover[x]), peak));
  }
}

template <typename T>
inline __attribute__((always_inline)) void blend_line(T* out, const T* sample, const T* background,
                                                      const float* cover, const LineColours& c, float peak,
                                                      int count) {
  if (c.subject && c.ambient) {
    blend_soft<true, true>(out, sample, background, cover, c.subject, c.behind, c.ambient, c.light_wrap, peak, count);
  } else if (c.subject) {
    blend_soft<true, false>(out, sample, background, cover, c.subject, c.behind, c.ambient, 0.0f, peak, count);
  } else if (c.ambient) {
    blend_soft<false, true>(out, sample, background, cover, c.subject, c.behind, c.ambient, c.light_wrap, peak, count);
  } else {
    blend_soft<false, false>(out, sample, background, cover, c.subject, c.behind, c.ambient, 0.0f, peak, count);
  }
}

}  // namespace

BANET_CLONES void blend_samples(uint8_t* out, const uint8_t* sample, const uint8_t* background,
                                const float* cover, const LineColours& colours, float peak, int count) {
  blend_line(out, sample, background, cover, colours, peak, count);
}
BANET_CLONES void blend_samples(int16_t* out, const int16_t* sample, const int16_t* background,
                                const float* cover, const LineColours& colours, float peak, int count) {
  blend_line(out, sample, background, cover, colours, peak, count);
}

namespace {

// One frame being composited; `group` is called for every chroma row.
template <typename T>
class Compositor {
 public:
  Compositor(const Plane<T> (&planes)[3], const Plane<T> (&background)[3], T* const (&out)[3],
             const AlphaField& field, const Colours& colours, const Options& options)
      : planes_(planes), background_(background), out_(out), field_(field), colours_(colours),
        options_(options), luma_rows_(axis(field.height, planes[0].height)),
        luma_columns_(axis(field.width, planes[0].width)),
        colour_rows_{axis(options.colours.height, planes[0].height), axis(options.colours.height, planes[1].height)},
        colour_columns_{axis(options.colours.width, planes[0].width), axis(options.colours.width, planes[1].width)},
        walk_(field, *luma_rows_, *luma_columns_) {}

  // The part of the colours' size that the frame's soft pixels look at.
  Window colour_window() const {
    const ColourOptions& c = options_.colours;
    // A frame pixel reads so many matte pixels to either side; a chroma sample, two frame pixels around it.
    Window window = soft_window(field_, most(luma_rows_->count, luma_columns_->count) + 4);
    int taps = 2;
    for (int i = 0; i < 2; ++i) taps = most(taps, most(colour_rows_[i]->count, colour_columns_[i]->count));
    const auto low = [&](int at, int size, int colours) { return most(at * colours / size - taps, 0); };
    const auto high = [&](int at, int size, int colours) { return least((at * colours + size - 1) / size + taps, colours); };
    if (window.top >= window.bottom || window.left >= window.right) return {0, 0, 0, 0};
    return {low(window.top, field_.height, c.height), high(window.bottom, field_.height, c.height),
            low(window.left, field_.width, c.width), high(window.right, field_.width, c.width)};
  }

  void group(int chroma_row) const {
    const int width = planes_[0].width, begin = chroma_row * options_.vertical;
    const int end = least(begin + options_.vertical, planes_[0].height);
    float* cover = scratch<float, 6>(2 * width);
    const std::vector<Span>& spans = walk_.spans(begin, end);
    for (int y = begin; y < end; ++y) {
      for (const Span& span : spans) luma(y, span, cover + (y - begin) * width);
    }
    int done = 0;  // chroma columns written
    const int half = options_.horizontal == 2, chroma_width = planes_[1].width;
    for (const Span& span : spans) {
      if (!span.state) continue;
      // Columns whose luma neighbours all lie in the span.
      const int from = span.begin == 0 ? 0 : half ? (span.begin + 2) / 2 : span.begin;
      const int to = span.end == width ? chroma_width : half ? span.end / 2 : span.end;
      if (from >= to) continue;
      if (done < from) soft_chroma(chroma_row, cover, end - begin, done, from);
      for (int p = 1; p < 3; ++p) copy(p, chroma_row, {from, to, span.state});
      done = to;
    }
    if (done < chroma_width) soft_chroma(chroma_row, cover, end - begin, done, chroma_width);
  }

 private:
  T* out(int plane, int row) const { return out_[plane] + static_cast<int64_t>(row) * planes_[plane].width; }

  void copy(int plane, int row, const Span& span) const {
    const Plane<T>& source = span.state == surely_subject ? planes_[plane] : background_[plane];
    std::memcpy(out(plane, row) + span.begin, source.row(row) + span.begin,
                sizeof(T) * static_cast<size_t>(span.end - span.begin));
  }

  void luma(int row, const Span& span, float* cover) const {
    if (span.state) {
      std::fill(cover + span.begin, cover + span.end, span.state == surely_subject ? 1.0f : 0.0f);
      copy(0, row, span);
      return;
    }
    float* slope = scratch<float, 5>(2 * static_cast<size_t>(planes_[0].width + apart));
    float* offset = slope + planes_[0].width + apart;
    enlarge(slope, field_.slopes(), *luma_rows_, *luma_columns_, row, span.begin, span.end);
    enlarge(offset, field_.offsets(), *luma_rows_, *luma_columns_, row, span.begin, span.end);
    soft_alpha(cover + span.begin, slope, offset, planes_[0].row(row) + span.begin, options_.peak,
               options_.alpha.floor, options_.alpha.ceiling, span.end - span.begin);
    soft(0, row, cover + span.begin, *colour_rows_[0], *colour_columns_[0], span.begin, span.end);
  }

  void soft_chroma(int row, const float* luma_cover, int rows, int begin, int end) const {
    const int luma_width = planes_[0].width;
    float* cover = scratch<float, 7>(2 * luma_width);
    float* other = cover + luma_width;
    cover_line(cover, luma_cover, luma_width, options_.horizontal, begin, end);
    if (rows == 2) {
      cover_line(other, luma_cover + luma_width, luma_width, options_.horizontal, begin, end);
      average_line(cover, other, end - begin);
    }
    for (int p = 1; p < 3; ++p) soft(p, row, cover, *colour_rows_[1], *colour_columns_[1], begin, end);
  }

  void soft(int plane, int row, const float* cover, const Axis& rows, const Axis& columns, int begin,
            int end) const {
    const int width = planes_[0].width, count = end - begin;
    float* lines = scratch<float, 4>(3 * static_cast<size_t>(width + apart));
    LineColours line;
    line.light_wrap = options_.colours.light_wrap;
    if (options_.colours.decontaminate) {
      line.subject = lines, line.behind = lines + width + apart;
      enlarge(lines, colours_.subject[plane], rows, columns, row, begin, end);
      enlarge(lines + width + apart, colours_.behind[plane], rows, columns, row, begin, end);
    }
    if (options_.colours.light_wrap > 0.0f) {
      line.ambient = lines + 2 * (width + apart);
      enlarge(lines + 2 * (width + apart), colours_.ambient[plane], rows, columns, row, begin, end);
    }
    blend_samples(out(plane, row) + begin, planes_[plane].row(row) + begin, background_[plane].row(row) + begin,
                  cover, line, options_.peak, count);
  }

  const Plane<T> (&planes_)[3], (&background_)[3];
  T* const (&out_)[3];
  const AlphaField& field_;
  const Colours& colours_;
  const Options& options_;
  const std::shared_ptr<const Axis> luma_rows_, luma_columns_;
  const std::shared_ptr<const Axis> colour_rows_[2], colour_columns_[2];  // to luma's size, to chroma's
  const SpanWalk walk_;
};

// Alpha, Y, U, V and, for light wrap, the new background's Y, U, V, at the colours' size. Where `guide`, the luma
// at the matte's size, halves evenly, its means are the frame's.
template <typename T>
const float* colour_planes(const Plane<T> (&planes)[3], const Plane<T> (&background)[3], const float* alpha,
                           const float* guide, int height, int width, const ColourOptions& options) {
  const size_t pixels = static_cast<size_t>(options.height) * options.width;
  float* small = scratch<float, 14>(7 * pixels);
  const auto matte_plane = [&](const float* data) { return Plane<float>{data, height, width, width, 1}; };
  shrink(small, matte_plane(alpha), options.height, options.width);
  if (guide && height % options.height == 0 && width % options.width == 0 && planes[0].height >= height &&
      planes[0].width >= width) {
    shrink(small + pixels, matte_plane(guide), options.height, options.width);
  } else {
    shrink(small + pixels, planes[0], options.height, options.width);
  }
  for (int p = 1; p < 3; ++p) shrink(small + (1 + p) * pixels, planes[p], options.height, options.width);
  for (int p = 0; options.light_wrap > 0.0f && p < 3; ++p) {
    shrink(small + (4 + p) * pixels, background[p], options.height, options.width);
  }
  return small;
}

template <typename T>
void composite(const Plane<T> (&planes)[3], const Plane<float>& alpha, const Plane<T> (&background)[3],
               T* const (&out)[3], const Options& options) {
  const int height = alpha.height, width = alpha.width;
  const size_t pixels = static_cast<size_t>(height) * width;
  float* clean = scratch<float, 12>(2 * pixels);
  float* guide = clean + pixels;
  load_alpha(clean, alpha);
  if (options.alpha.guided) shrink(guide, planes[0], height, width);
  const AlphaField field = alpha_field(clean, guide, options.peak, height, width, options.alpha);
  Colours colours;
  const Compositor<T> compositor(planes, background, out, field, colours, options);
  if (options.colours.wanted()) {
    const Window window = compositor.colour_window();
    const float* small = colour_planes(planes, background, clean, options.alpha.guided ? guide : nullptr, height, width, options.colours);
    colours = local_colours(small, window, options.colours);
  }
  parallel_blocks(planes[1].height, 16, [&](int begin, int end) {
    for (int row = begin; row < end; ++row) compositor.group(row);
  });
}

template <typename T>
void composite_tensors(const Tensor* const (&planes)[3], const Tensor& alpha,
                       const Tensor* const (&background)[3], Tensor* out, const Options& options) {
  const Plane<T> front[3] = {plane_of<T>(*planes[0]), plane_of<T>(*planes[1]), plane_of<T>(*planes[2])};
  const Plane<T> back[3] = {plane_of<T>(*background[0]), plane_of<T>(*background[1]),
                            plane_of<T>(*background[2])};
  T* const result[3] = {static_cast<T*>(out[0].mutable_data_ptr()), static_cast<T*>(out[1].mutable_data_ptr()),
                        static_cast<T*>(out[2].mutable_data_ptr())};
  composite<T>(front, plane_of<float>(alpha), back, result, options);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> composite_cpu(const Tensor& y, const Tensor& u, const Tensor& v,
                                                 const Tensor& alpha, const Tensor& back_y,
                                                 const Tensor& back_u, const Tensor& back_v, int64_t depth,
                                                 int64_t horizontal, int64_t vertical, bool guided,
                                                 int64_t radius, double epsilon, double floor, double ceiling,
                                                 int64_t colour_height, int64_t colour_width, int64_t reach,
                                                 double tiny, bool decontaminate, double light_wrap) {
  const ScalarType samples = depth == 8 ? ScalarType::Byte : ScalarType::Short;
  const Tensor* const planes[3] = {&y, &u, &v};
  const Tensor* const background[3] = {&back_y, &back_u, &back_v};
  check_plane("composite", "alpha", alpha, ScalarType::Float);
  Tensor out[3];
  for (int p = 0; p < 3; ++p) {
    check_plane("composite", "planes", *planes[p], samples);
    check_plane("composite", "background", *background[p], samples);
    const int64_t height = p ? (y.size(0) + vertical - 1) / vertical : y.size(0);
    const int64_t width = p ? (y.size(1) + horizontal - 1) / horizontal : y.size(1);
    for (const Tensor* t : {planes[p], background[p]}) {
      STD_TORCH_CHECK(t->size(0) == height && t->size(1) == width, "composite: plane ", p, " must be [", height,
                      ", ", width, "]");
      STD_TORCH_CHECK(t->size(1) == 1 || t->stride(1) == 1,
                      "composite: planes must have neighbouring columns side by side");
    }
    out[p] = torch::stable::new_empty(y, {height, width});
  }
  const Options options{{guided, static_cast<int>(radius), static_cast<float>(epsilon),
                         static_cast<float>(floor), static_cast<float>(ceiling)},
                        {static_cast<int>(colour_height), static_cast<int>(colour_width), static_cast<int>(reach),
                         static_cast<float>(tiny), decontaminate, static_cast<float>(light_wrap)},
                        static_cast<int>(horizontal), static_cast<int>(vertical),
                        static_cast<float>((1 << depth) - 1)};
  if (depth == 8) composite_tensors<uint8_t>(planes, alpha, background, out, options);
  else composite_tensors<int16_t>(planes, alpha, background, out, options);
  return {out[0], out[1], out[2]};
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) { m.impl("composite", TORCH_BOX(&banet::composite_cpu)); }
