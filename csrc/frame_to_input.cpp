// frame_to_input on the CPU, one row of the result at a time: no RGB frame ever stands in memory.
#include "frame_to_input.h"

#include "cpu.h"

namespace banet {

BANET_CLONES void input_line(float* __restrict red, float* __restrict green, float* __restrict blue,
                             const float* __restrict y, const float* __restrict u,
                             const float* __restrict v, const InputColour& colour, int width) {
  const InputColour c = colour;
  for (int x = 0; x < width; ++x) to_input(y[x], u[x], v[x], c, red[x], green[x], blue[x]);
}

namespace {

template <int step, typename T>
inline __attribute__((always_inline)) void store_line(T* __restrict out, const float* __restrict line,
                                                      int width) {
  for (int x = 0; x < width; ++x) out[x * step] = Store<T>::of(line[x]);
}

}  // namespace

BANET_CLONES void store_input(float* out, const float* line, int step, int width) {
  if (step == 1) store_line<1>(out, line, width); else store_line<3>(out, line, width);
}
BANET_CLONES void store_input(Half* out, const float* line, int step, int width) {
  if (step == 1) store_line<1>(out, line, width); else store_line<3>(out, line, width);
}
BANET_CLONES void store_input(BFloat16* out, const float* line, int step, int width) {
  if (step == 1) store_line<1>(out, line, width); else store_line<3>(out, line, width);
}

namespace {

// `step` is 1 for channels first, 3 for channels last.
template <typename T, typename Out>
void convert(Out* out, const Plane<T> (&planes)[3], int height, int width, int step, const InputColour& colour) {
  const auto luma_rows = axis(planes[0].height, height), luma_columns = axis(planes[0].width, width);
  const auto chroma_rows = axis(planes[1].height, height), chroma_columns = axis(planes[1].width, width);
  const int64_t plane = step == 1 ? static_cast<int64_t>(height) * width : 1;
  parallel_blocks(height, 16, [&](int begin, int end) {
    float* line = scratch<float, 2>(most(planes[0].width, planes[1].width));
    float* yuv = scratch<float, 3>(6 * width);
    float* rgb = yuv + 3 * width;
    for (int row = begin; row < end; ++row) {
      for (int p = 0; p < 3; ++p) {
        combine_rows(line, planes[p], p ? *chroma_rows : *luma_rows, row, 0, planes[p].width);
        combine_taps(yuv + p * width, line, p ? *chroma_columns : *luma_columns, 0, width);
      }
      input_line(rgb, rgb + width, rgb + 2 * width, yuv, yuv + width, yuv + 2 * width, colour, width);
      Out* to = out + static_cast<int64_t>(row) * width * step;
      for (int p = 0; p < 3; ++p) store_input(to + p * plane, rgb + p * width, step, width);
    }
  });
}

template <typename T>
void convert_to(const Tensor& out, const Tensor& y, const Tensor& u, const Tensor& v, int height, int width,
                int step, const InputColour& colour) {
  const Plane<T> planes[3] = {plane_of<T>(y), plane_of<T>(u), plane_of<T>(v)};
  void* data = out.mutable_data_ptr();
  if (out.scalar_type() == ScalarType::Float) convert(static_cast<float*>(data), planes, height, width, step, colour);
  else if (out.scalar_type() == ScalarType::Half) convert(static_cast<Half*>(data), planes, height, width, step, colour);
  else convert(static_cast<BFloat16*>(data), planes, height, width, step, colour);
}

}  // namespace

Tensor frame_to_input_cpu(const Tensor& y, const Tensor& u, const Tensor& v, int64_t height, int64_t width,
                          const std::vector<double>& scale, const std::vector<double>& mean,
                          const std::vector<double>& std, ScalarType dtype, bool channels_last) {
  const ScalarType samples = y.scalar_type();
  STD_TORCH_CHECK(samples == ScalarType::Byte || samples == ScalarType::Short,
                  "frame_to_input: planes must be uint8 or int16");
  for (const Tensor* t : {&y, &u, &v}) check_plane("frame_to_input", "planes", *t, samples);
  STD_TORCH_CHECK(u.size(0) == v.size(0) && u.size(1) == v.size(1), "frame_to_input: U and V must be of one size");
  STD_TORCH_CHECK(scale.size() == 6 && mean.size() == 3 && std.size() == 3,
                  "frame_to_input: scale, mean and std must hold 6, 3 and 3 numbers");
  STD_TORCH_CHECK(height > 0 && width > 0, "frame_to_input: size must be two positive numbers");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
                  "frame_to_input: dtype must be float32, float16 or bfloat16");
  InputColour colour{};
  float* const fields[] = {&colour.red, &colour.blue, &colour.black, &colour.luma, &colour.grey, &colour.chroma};
  for (int i = 0; i < 6; ++i) *fields[i] = static_cast<float>(scale[i]);
  for (int i = 0; i < 3; ++i) colour.mean[i] = static_cast<float>(mean[i]), colour.std[i] = static_cast<float>(std[i]);
  std::vector<int64_t> shape{1, 3, height, width};
  if (channels_last) shape = {1, height, width, 3};
  Tensor out = torch::stable::new_empty(y, shape, dtype);
  const int h = static_cast<int>(height), w = static_cast<int>(width), step = channels_last ? 3 : 1;
  if (samples == ScalarType::Byte) convert_to<uint8_t>(out, y, u, v, h, w, step, colour);
  else convert_to<int16_t>(out, y, u, v, h, w, step, colour);
  if (!channels_last) return out;
  return torch::stable::transpose(torch::stable::transpose(out, 1, 3), 2, 3);  // seen as [1, 3, h, w]
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("frame_to_input", TORCH_BOX(&banet::frame_to_input_cpu));
}
