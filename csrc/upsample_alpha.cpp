// upsample_alpha on the CPU. Certain spans are filled; only soft ones are computed.
#include "matte_cpu.h"

namespace banet {

namespace {

template <typename T>
void upsample_rows(float* out, const Plane<T>& luma, const AlphaField& field, float peak,
                   const AlphaOptions& options) {
  const auto rows = axis(field.height, luma.height), columns = axis(field.width, luma.width);
  const SpanWalk walk(field, *rows, *columns);
  parallel_blocks(luma.height, matte_block, [&](int begin, int end) {
    float* slope = scratch<float, 5>(2 * static_cast<size_t>(luma.width + apart));
    float* offset = slope + luma.width + apart;
    for (int y = begin; y < end; ++y) {
      float* line = out + static_cast<int64_t>(y) * luma.width;
      for (const Span& span : walk.spans(y, y + 1)) {
        if (span.state) {
          std::fill(line + span.begin, line + span.end, span.state == surely_subject ? 1.0f : 0.0f);
          continue;
        }
        enlarge(slope, field.slopes(), *rows, *columns, y, span.begin, span.end);
        enlarge(offset, field.offsets(), *rows, *columns, y, span.begin, span.end);
        soft_alpha(line + span.begin, slope, offset, luma.row(y) + span.begin, peak, options.floor,
                   options.ceiling, span.end - span.begin);
      }
    }
  });
}

template <typename T>
void upsample(float* out, const Plane<float>& alpha, const Plane<T>& luma, float peak,
              const AlphaOptions& options) {
  const size_t pixels = static_cast<size_t>(alpha.height) * alpha.width;
  float* clean = scratch<float, 12>(2 * pixels);
  float* guide = clean + pixels;
  load_alpha(clean, alpha);
  if (options.guided) shrink(guide, luma, alpha.height, alpha.width);
  const AlphaField field = alpha_field(clean, guide, peak, alpha.height, alpha.width, options);
  upsample_rows(out, luma, field, peak, options);
}

}  // namespace

Tensor upsample_alpha_cpu(const Tensor& alpha, const Tensor& luma, int64_t depth, bool guided, int64_t radius,
                          double epsilon, double floor, double ceiling) {
  const ScalarType samples = depth == 8 ? ScalarType::Byte : ScalarType::Short;
  check_plane("upsample_alpha", "alpha", alpha, ScalarType::Float);
  check_plane("upsample_alpha", "luma", luma, samples);
  STD_TORCH_CHECK(luma.size(1) == 1 || luma.stride(1) == 1,
                  "upsample_alpha: luma must have neighbouring columns side by side");
  const AlphaOptions options{guided, static_cast<int>(radius), static_cast<float>(epsilon),
                             static_cast<float>(floor), static_cast<float>(ceiling)};
  const float peak = static_cast<float>((1 << depth) - 1);
  Tensor out = torch::stable::new_empty(alpha, {luma.size(0), luma.size(1)});
  float* data = static_cast<float*>(out.mutable_data_ptr());
  if (depth == 8) {
    upsample(data, plane_of<float>(alpha), plane_of<uint8_t>(luma), peak, options);
  } else {
    upsample(data, plane_of<float>(alpha), plane_of<int16_t>(luma), peak, options);
  }
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("upsample_alpha", TORCH_BOX(&banet::upsample_alpha_cpu));
}
