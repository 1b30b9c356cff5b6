// frame_to_input on CUDA: one thread per pixel of the result reads the frame's samples under it (Y once,
// U and V once: 1.5 bytes per luma sample at 4:2:0) and writes three values. One launch, no RGB frame.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "frame_to_input.h"

extern "C" __global__ void frame_to_input_kernel(
    void* out, int kind, bool channels_last, int height, int width,              // kind: 0 float, 1 half, 2 bfloat16
    const void* y, int64_t y_stride, int64_t y_step, int y_height, int y_width,  //
    const void* u, int64_t u_stride, int64_t u_step, const void* v, int64_t v_stride, int64_t v_step,
    int c_height, int c_width, bool wide, float red, float blue, float black, float luma, float grey, float chroma,
    float mean_r, float mean_g, float mean_b, float std_r, float std_g, float std_b) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int row = static_cast<int>(i / width), column = static_cast<int>(i % width);
  const Size target{height, width}, luma_size{y_height, y_width}, chroma_size{c_height, c_width};
  const InputColour colour{red, blue, black, luma, grey, chroma, {mean_r, mean_g, mean_b}, {std_r, std_g, std_b}};
  float rgb[3];
  to_input(resample(Samples{y, y_stride, y_step, wide}, luma_size, target, row, column),
           resample(Samples{u, u_stride, u_step, wide}, chroma_size, target, row, column),
           resample(Samples{v, v_stride, v_step, wide}, chroma_size, target, row, column), colour, rgb[0], rgb[1],
           rgb[2]);
  for (int c = 0; c < 3; ++c) {
    const int64_t at = channels_last ? 3 * i + c : c * pixels + i;
    if (kind == 0) static_cast<float*>(out)[at] = rgb[c];
    if (kind == 1) static_cast<Half*>(out)[at] = to_half(rgb[c]);
    if (kind == 2) static_cast<BFloat16*>(out)[at] = to_bfloat16(rgb[c]);
  }
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

Tensor frame_to_input_cuda(const Tensor& y, const Tensor& u, const Tensor& v, int64_t height, int64_t width,
                           const std::vector<double>& scale, const std::vector<double>& mean,
                           const std::vector<double>& std, ScalarType dtype, bool channels_last) {
  const bool wide = y.scalar_type() == ScalarType::Short;
  for (const Tensor* t : {&y, &u, &v}) check_samples("frame_to_input", "planes", *t, wide ? 16 : 8);
  STD_TORCH_CHECK(u.size(0) == v.size(0) && u.size(1) == v.size(1), "frame_to_input: U and V must be of one size");
  STD_TORCH_CHECK(scale.size() == 6 && mean.size() == 3 && std.size() == 3 && height > 0 && width > 0,
                  "frame_to_input: scale, mean, std and size must hold 6, 3, 3 and 2 numbers");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
                  "frame_to_input: dtype must be float32, float16 or bfloat16");
  const Launch launch(y);
  std::vector<int64_t> shape{1, 3, height, width};
  if (channels_last) shape = {1, height, width, 3};
  Tensor result = torch::stable::new_empty(y, shape, dtype);
  const int kind = dtype == ScalarType::Float ? 0 : dtype == ScalarType::Half ? 1 : 2;
  launch(frame_to_input_kernel, height * width, result.mutable_data_ptr(), kind, channels_last, height, width,
         y.const_data_ptr(), y.stride(0), y.stride(1), rows_of(y), columns_of(y), u.const_data_ptr(), u.stride(0),
         u.stride(1), v.const_data_ptr(), v.stride(0), v.stride(1), rows_of(u), columns_of(u), wide, scale[0],
         scale[1], scale[2], scale[3], scale[4], scale[5], mean[0], mean[1], mean[2], std[0], std[1], std[2]);
  if (!channels_last) return result;
  return torch::stable::transpose(torch::stable::transpose(result, 1, 3), 2, 3);  // seen as [1, 3, h, w]
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) {
  m.impl("frame_to_input", TORCH_BOX(&banet::frame_to_input_cuda));
}
#endif
