// composite on the CPU. At the matte's size: the guided fit and local colours. At full size: copies, but
// for the soft band, which alone is computed. Rows go by groups that share a chroma row.
#include "composite.h"

#include <cstring>

#include "matte_cpu.h"

namespace banet {

namespace {

struct Options {
  AlphaOptions alpha;
  int horizontal, vertical;  // subsampling
  int reach;                 // radius of the colour means; 0: no decontamination
  float tiny, peak;
};

// Local colours of subject and old background, one pair of [h, w] planes per sample plane.
struct Colours {
  const float* means = nullptr;
  int height = 0, width = 0;

  Plane<float> of(int plane, int which) const {
    return {means + static_cast<size_t>(2 * plane + which) * height * width, height, width, width, 1};
  }
};

}  // namespace

BANET_CLONES void weighted_line(float* __restrict out, const float* __restrict alpha,
                                const float* __restrict y, const float* __restrict u,
                                const float* __restrict v, int width) {
  for (int x = 0; x < width; ++x) {
    const float subject = subject_weight(alpha[x]), behind = behind_weight(alpha[x]);
    float* o = out + 8 * x;
    o[0] = subject, o[1] = behind;
    o[2] = subject * y[x], o[3] = behind * y[x];
    o[4] = subject * u[x], o[5] = behind * u[x];
    o[6] = subject * v[x], o[7] = behind * v[x];
  }
}

BANET_CLONES void colour_line(float* __restrict subject, float* __restrict behind,
                              const float* __restrict weighted, const float* __restrict weights,
                              const float* __restrict own, float tiny, int width) {
  for (int x = 0; x < width; ++x) {
    subject[x] = local_colour(weighted[8 * x], weights[8 * x], own[x], tiny);
    behind[x] = local_colour(weighted[8 * x + 1], weights[8 * x + 1], own[x], tiny);
  }
}

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

namespace {

template <typename T>
inline __attribute__((always_inline)) void blend_line(T* __restrict out, const T* __restrict sample,
                                                      const T* __restrict background,
                                                      const float* __restrict cover,
                                                      const float* __restrict subject,
                                                      const float* __restrict behind, float peak, int count) {
  if (subject) {
    for (int x = 0; x < count; ++x) {
      const float colour = decontaminated(sample[x], cover[x], subject[x], behind[x]);
      out[x] = static_cast<T>(quantise(blend(colour, background[x], cover[x]), peak));
    }
  } else {
    for (int x = 0; x < count; ++x) {
      out[x] = static_cast<T>(quantise(blend(sample[x], background[x], cover[x]), peak));
    }
  }
}

}  // namespace

BANET_CLONES void blend_samples(uint8_t* out, const uint8_t* sample, const uint8_t* background,
                                const float* cover, const float* subject, const float* behind, float peak,
                                int count) {
  blend_line(out, sample, background, cover, subject, behind, peak, count);
}
BANET_CLONES void blend_samples(int16_t* out, const int16_t* sample, const int16_t* background,
                                const float* cover, const float* subject, const float* behind, float peak,
                                int count) {
  blend_line(out, sample, background, cover, subject, behind, peak, count);
}

namespace {

// Only where soft pixels will ask for them.
Colours local_colours(const float* alpha, const float* small, const AlphaField& field, const Window& window,
                      const Options& options) {
  const int height = field.height, width = field.width, reach = options.reach;
  const int columns = window.right - window.left, top = most(window.top - reach, 0);
  const int rows = least(window.bottom + reach, height) - top;
  const size_t pixels = static_cast<size_t>(height) * width;
  float* means = scratch<float, 13>(6 * pixels);
  float* sums = scratch<float, 14>(8 * static_cast<size_t>(rows) * columns);
  const auto row = [&](int y) { return sums + 8 * static_cast<size_t>(y - top) * columns; };
  parallel_blocks(rows, matte_block, [&](int begin, int end) {
    float* line = scratch<float, 2>(8 * width);
    const int from = most(window.left - reach, 0), to = least(window.right + reach, width);
    for (int y = top + begin; y < top + end; ++y) {
      const size_t at = static_cast<size_t>(y) * width + from;
      weighted_line(line + 8 * from, alpha + at, small + at, small + pixels + at, small + 2 * pixels + at,
                    to - from);
      box_line_8(row(y), line, width, reach, window.left, window.right);
    }
  });
  parallel_blocks(window.bottom - window.top, matte_block, [&](int begin, int end) {
    box_rows(row, height, 8 * columns, reach, window.top + begin, window.top + end, [&](int y, const float* mean) {
      const size_t at = static_cast<size_t>(y) * width + window.left;
      for (int p = 0; p < 3; ++p) {
        colour_line(means + 2 * p * pixels + at, means + (2 * p + 1) * pixels + at, mean + 2 + 2 * p, mean,
                    small + p * pixels + at, options.tiny, columns);
      }
    });
  });
  return {means, height, width};
}

// One frame being composited; `group` is called for every chroma row.
template <typename T>
class Compositor {
 public:
  Compositor(const Plane<T> (&planes)[3], const Plane<T> (&background)[3], T* const (&out)[3],
             const AlphaField& field, const Colours& colours, const Options& options)
      : planes_(planes), background_(background), out_(out), field_(field), colours_(colours),
        options_(options), luma_rows_(axis(field.height, planes[0].height)),
        luma_columns_(axis(field.width, planes[0].width)), chroma_rows_(axis(field.height, planes[1].height)),
        chroma_columns_(axis(field.width, planes[1].width)), walk_(field, *luma_rows_, *luma_columns_) {}

  // How far around a soft pixel of the matte the frame's pixels look for colours.
  int margin() const {
    return 2 + most(most(luma_rows_->count, luma_columns_->count), most(chroma_rows_->count, chroma_columns_->count));
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
    float* slope = scratch<float, 4>(planes_[0].width);
    float* offset = scratch<float, 5>(planes_[0].width);
    enlarge_pair(slope, offset, field_.slopes(), field_.offsets(), *luma_rows_, *luma_columns_, row, span.begin,
                 span.end);
    soft_alpha(cover + span.begin, slope, offset, planes_[0].row(row) + span.begin, options_.peak,
               options_.alpha.floor, options_.alpha.ceiling, span.end - span.begin);
    soft(0, row, cover + span.begin, *luma_rows_, *luma_columns_, span.begin, span.end);
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
    for (int p = 1; p < 3; ++p) soft(p, row, cover, *chroma_rows_, *chroma_columns_, begin, end);
  }

  void soft(int plane, int row, const float* cover, const Axis& rows, const Axis& columns, int begin,
            int end) const {
    float *subject = nullptr, *behind = nullptr;
    if (colours_.means) {
      subject = scratch<float, 4>(planes_[0].width);
      behind = scratch<float, 5>(planes_[0].width);
      enlarge_pair(subject, behind, colours_.of(plane, 0), colours_.of(plane, 1), rows, columns, row, begin, end);
    }
    blend_samples(out(plane, row) + begin, planes_[plane].row(row) + begin, background_[plane].row(row) + begin,
                  cover, subject, behind, options_.peak, end - begin);
  }

  const Plane<T> (&planes_)[3], (&background_)[3];
  T* const (&out_)[3];
  const AlphaField& field_;
  const Colours& colours_;
  const Options& options_;
  const std::shared_ptr<const Axis> luma_rows_, luma_columns_, chroma_rows_, chroma_columns_;
  const SpanWalk walk_;
};

template <typename T>
void composite(const Plane<T> (&planes)[3], const Plane<float>& alpha, const Plane<T> (&background)[3],
               T* const (&out)[3], const Options& options) {
  const int height = alpha.height, width = alpha.width;
  const size_t pixels = static_cast<size_t>(height) * width;
  float* clean = scratch<float, 12>(4 * pixels);
  float* small = clean + pixels;
  load_alpha(clean, alpha);
  const int needed = options.reach ? 3 : options.alpha.guided ? 1 : 0;
  for (int p = 0; p < needed; ++p) {
    shrink(small + p * pixels, planes[p], height, width);
  }
  const AlphaField field = alpha_field(clean, small, options.peak, height, width, options.alpha);
  Colours colours;
  const Compositor<T> compositor(planes, background, out, field, colours, options);
  const Window window = soft_window(field, compositor.margin());
  if (options.reach && window.top < window.bottom && window.left < window.right) {
    colours = local_colours(clean, small, field, window, options);
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
                                                 int64_t reach, double tiny) {
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
      STD_TORCH_CHECK(t->stride(1) == 1, "composite: planes must have neighbouring columns side by side");
    }
    out[p] = torch::stable::new_empty(y, {height, width});
  }
  const Options options{{guided, static_cast<int>(radius), static_cast<float>(epsilon),
                         static_cast<float>(floor), static_cast<float>(ceiling)},
                        static_cast<int>(horizontal), static_cast<int>(vertical), static_cast<int>(reach),
                        static_cast<float>(tiny), static_cast<float>((1 << depth) - 1)};
  if (depth == 8) composite_tensors<uint8_t>(planes, alpha, background, out, options);
  else composite_tensors<int16_t>(planes, alpha, background, out, options);
  return {out[0], out[1], out[2]};
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) { m.impl("composite", TORCH_BOX(&banet::composite_cpu)); }
