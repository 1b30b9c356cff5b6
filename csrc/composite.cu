// composite on CUDA, in seven launches. At the matte's size: alpha and luma shrunk, the guided fit and its
// mean. At the colours' size, a quarter of it: planes shrunk, the weighted sums by rows and by columns. At
// full size one thread per chroma sample writes it and its one, two or four luma samples: it reads and writes
// every sample once (4.5 bytes per luma sample at 4:2:0 and 8 bits), everything else comes from the small
// sizes and stays in the cache.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "composite.h"

// small: [2, h, w], cleaned alpha, then Y resized. One thread per matte pixel.
extern "C" __global__ void composite_small_kernel(float* small, int height, int width, const float* alpha,
                                                  int64_t alpha_stride, int64_t alpha_step, const void* y,
                                                  int64_t y_stride, int y_height, int y_width, bool wide) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  shrink_pixel(small, small + pixels, {height, width}, alpha, alpha_stride, alpha_step,
               Samples{y, y_stride, 1, wide}, {y_height, y_width}, i);
}

extern "C" __global__ void composite_fit_kernel(float* fits, const float* small, float peak, int height, int width,
                                                bool guided, int radius, float epsilon) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  fit_pixel(fits, small, small + pixels, peak, {height, width}, guided, radius, epsilon, i);
}

extern "C" __global__ void composite_mean_kernel(float* means, const float* fits, int height, int width,
                                                 int radius) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(height) * width) return;
  mean_pixel(means, fits, {height, width}, radius, i);
}

// rough: [channels, height, width] at the colours' size: alpha, then the frame's Y, U, V (4 channels), then the new
// background's (7). One thread per pixel; `small` is alpha at the matte's size.
extern "C" __global__ void composite_rough_kernel(
    float* rough, int channels, int height, int width, const float* small, int matte_height, int matte_width,
    const void* y, int64_t y_stride, const void* u, int64_t u_stride, const void* v, int64_t v_stride,
    const void* back_y, int64_t back_y_stride, const void* back_u, int64_t back_u_stride, const void* back_v,
    int64_t back_v_stride, int y_height, int y_width, int c_height, int c_width, bool wide) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int row = static_cast<int>(i / width), column = static_cast<int>(i % width);
  const Size size{height, width}, luma{y_height, y_width}, chroma{c_height, c_width};
  rough[i] = resample(Floats{small, matte_width}, {matte_height, matte_width}, size, row, column);
  rough[pixels + i] = resample(Samples{y, y_stride, 1, wide}, luma, size, row, column);
  rough[2 * pixels + i] = resample(Samples{u, u_stride, 1, wide}, chroma, size, row, column);
  rough[3 * pixels + i] = resample(Samples{v, v_stride, 1, wide}, chroma, size, row, column);
  if (channels == 4) return;
  rough[4 * pixels + i] = resample(Samples{back_y, back_y_stride, 1, wide}, luma, size, row, column);
  rough[5 * pixels + i] = resample(Samples{back_u, back_u_stride, 1, wide}, chroma, size, row, column);
  rough[6 * pixels + i] = resample(Samples{back_v, back_v_stride, 1, wide}, chroma, size, row, column);
}

// sums: [11, height, width], means along rows: the two weights, each plane of the frame weighted by both, then
// the new background's planes (if there are 7 channels).
extern "C" __global__ void composite_rows_kernel(float* sums, const float* rough, int channels, int height, int width,
                                                 int reach) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int column = static_cast<int>(i % width);
  const Range range = window_range(column, reach, width);
  float total[11] = {};
  for (int x = range.begin; x < range.end; ++x) {
    const int64_t at = i - column + x;
    const float subject = subject_weight(rough[at]), behind = behind_weight(rough[at]);
    total[0] += subject, total[1] += behind;
    for (int p = 1; p < 4; ++p) {
      total[2 * p] += subject * rough[p * pixels + at];
      total[2 * p + 1] += behind * rough[p * pixels + at];
    }
    for (int p = 4; p < channels; ++p) total[4 + p] += rough[p * pixels + at];
  }
  const float share = 1.0f / static_cast<float>(range.end - range.begin);
  for (int c = 0; c < 4 + channels; ++c) sums[c * pixels + i] = total[c] * share;
}

// colours: [9, height, width]: Y of subject, old background and new background, then U, then V.
extern "C" __global__ void composite_columns_kernel(float* colours, const float* sums, const float* rough,
                                                    int channels, int height, int width, int reach, float tiny) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int row = static_cast<int>(i / width);
  const Range range = window_range(row, reach, height);
  float total[11] = {};
  for (int y = range.begin; y < range.end; ++y) {
    const int64_t at = i + static_cast<int64_t>(y - row) * width;
    for (int c = 0; c < 4 + channels; ++c) total[c] += sums[c * pixels + at];
  }
  const float share = 1.0f / static_cast<float>(range.end - range.begin);
  for (int c = 0; c < 4 + channels; ++c) total[c] *= share;
  for (int p = 0; p < 3; ++p) {
    const float own = rough[(p + 1) * pixels + i];
    colours[3 * p * pixels + i] = local_colour(total[2 * p + 2], total[0], own, tiny);
    colours[(3 * p + 1) * pixels + i] = local_colour(total[2 * p + 3], total[1], own, tiny);
    colours[(3 * p + 2) * pixels + i] = total[8 + p];
  }
}

namespace banet {

// What one thread needs to know about the frame and the matte.
struct CompositeView {
  Size matte, luma, chroma, small;  // small: the colours' size
  const float *fits, *colours;
  bool wide, decontaminate;
  float peak, floor, ceiling, light_wrap;
};

__device__ __forceinline__ float cover_at(const CompositeView& view, const Samples& luma, int row, int column) {
  const float* offsets = view.fits + static_cast<int64_t>(view.matte.height) * view.matte.width;
  return apply_fit(resample(Floats{view.fits, view.matte.width}, view.matte, view.luma, row, column),
                   resample(Floats{offsets, view.matte.width}, view.matte, view.luma, row, column),
                   luma(row, column) / view.peak, view.floor, view.ceiling);
}

__device__ __forceinline__ void put(const CompositeView& view, void* out, const Samples& front, const Samples& back,
                                    int plane, Size size, int row, int column, float cover) {
  float result;
  if (cover == 0.0f) {
    result = back(row, column);
  } else if (cover == 1.0f) {
    result = front(row, column);
  } else {
    float colour = front(row, column);
    const int64_t pixels = static_cast<int64_t>(view.small.height) * view.small.width;
    const auto local = [&](int which) {
      const Floats values{view.colours + (3 * plane + which) * pixels, view.small.width};
      return resample(values, view.small, size, row, column);
    };
    if (view.decontaminate) colour = decontaminated(colour, cover, local(0), local(1));
    if (view.light_wrap > 0.0f) colour = wrapped(colour, local(2), cover, view.light_wrap);
    result = static_cast<float>(quantise(blend(colour, back(row, column), cover), view.peak));
  }
  const int64_t at = static_cast<int64_t>(row) * size.width + column;
  if (view.wide) static_cast<int16_t*>(out)[at] = static_cast<int16_t>(result);
  else static_cast<uint8_t*>(out)[at] = static_cast<uint8_t>(result);
}

}  // namespace banet

extern "C" __global__ void composite_full_kernel(
    void* out_y, void* out_u, void* out_v, const void* y, int64_t y_stride, const void* u, int64_t u_stride,
    const void* v, int64_t v_stride, const void* back_y, int64_t back_y_stride, const void* back_u,
    int64_t back_u_stride, const void* back_v, int64_t back_v_stride, int y_height, int y_width, int c_height,
    int c_width, int horizontal, int vertical, const float* fits, const float* colours, int height, int width,
    int colour_height, int colour_width, bool wide, bool decontaminate, float peak, float floor, float ceiling,
    float light_wrap) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(c_height) * c_width) return;
  const int row = static_cast<int>(i / c_width), column = static_cast<int>(i % c_width);
  const CompositeView view{{height, width}, {y_height, y_width}, {c_height, c_width}, {colour_height, colour_width},
                           fits, colours, wide, decontaminate, peak, floor, ceiling, light_wrap};
  const Samples luma{y, y_stride, 1, wide}, back_luma{back_y, back_y_stride, 1, wide};
  float total = 0.0f;
  const int last = least((row + 1) * vertical, y_height);
  for (int r = row * vertical; r < last; ++r) {
    float middle = 0.0f, right = 0.0f;
    for (int h = 0; h < horizontal; ++h) {
      const int x = column * horizontal + h;
      right = x < y_width ? cover_at(view, luma, r, x) : middle;  // the edge repeats
      if (h == 0) middle = right;
      if (x < y_width) put(view, out_y, luma, back_luma, 0, view.luma, r, x, right);
    }
    total += horizontal == 1 ? middle
                             : chroma_cover(column ? cover_at(view, luma, r, 2 * column - 1) : middle, middle, right);
  }
  const float cover = total / static_cast<float>(last - row * vertical);
  put(view, out_u, {u, u_stride, 1, wide}, {back_u, back_u_stride, 1, wide}, 1, view.chroma, row, column, cover);
  put(view, out_v, {v, v_stride, 1, wide}, {back_v, back_v_stride, 1, wide}, 2, view.chroma, row, column, cover);
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

std::tuple<Tensor, Tensor, Tensor> composite_cuda(const Tensor& y, const Tensor& u, const Tensor& v,
                                                  const Tensor& alpha, const Tensor& back_y,
                                                  const Tensor& back_u, const Tensor& back_v, int64_t depth,
                                                  int64_t horizontal, int64_t vertical, bool guided,
                                                  int64_t radius, double epsilon, double floor, double ceiling,
                                                  int64_t colour_height, int64_t colour_width, int64_t reach,
                                                  double tiny, bool decontaminate, double light_wrap) {
  check_alpha("composite", alpha);
  for (const Tensor* t : {&y, &u, &v, &back_y, &back_u, &back_v}) {
    check_samples("composite", "planes", *t, depth);
    const bool luma = t == &y || t == &back_y;
    STD_TORCH_CHECK(t->size(0) == (luma ? y.size(0) : (y.size(0) + vertical - 1) / vertical) &&
                        t->size(1) == (luma ? y.size(1) : (y.size(1) + horizontal - 1) / horizontal),
                    "composite: planes must have the frame's and its chroma's shapes");
    STD_TORCH_CHECK(t->size(1) == 1 || t->stride(1) == 1,
                    "composite: planes must have neighbouring columns side by side");
  }
  const Launch launch(y);
  const int h = rows_of(alpha), w = columns_of(alpha);
  const int64_t pixels = alpha.numel();
  const float peak = static_cast<float>((1 << depth) - 1);
  const bool wide = depth != 8;
  const int channels = light_wrap > 0.0 ? 7 : 4;
  const int64_t colour_pixels = colour_height * colour_width;
  Tensor memory = floats(alpha, 6 * pixels + 27 * colour_pixels);
  float *small = out<float>(memory), *fits = small + 2 * pixels, *means = fits + 2 * pixels;
  float *rough = means + 2 * pixels, *sums = rough + 7 * colour_pixels, *colours = sums + 11 * colour_pixels;
  launch(composite_small_kernel, pixels, small, h, w, in<float>(alpha), alpha.stride(0), alpha.stride(1),
         y.const_data_ptr(), y.stride(0), rows_of(y), columns_of(y), wide);
  launch(composite_fit_kernel, pixels, fits, small, peak, h, w, guided, radius, epsilon);
  if (guided) launch(composite_mean_kernel, pixels, means, fits, h, w, radius);
  if (decontaminate || light_wrap > 0.0) {
    launch(composite_rough_kernel, colour_pixels, rough, channels, colour_height, colour_width, small, h, w,
           y.const_data_ptr(), y.stride(0), u.const_data_ptr(), u.stride(0), v.const_data_ptr(), v.stride(0),
           back_y.const_data_ptr(), back_y.stride(0), back_u.const_data_ptr(), back_u.stride(0),
           back_v.const_data_ptr(), back_v.stride(0), rows_of(y), columns_of(y), rows_of(u), columns_of(u), wide);
    launch(composite_rows_kernel, colour_pixels, sums, rough, channels, colour_height, colour_width, reach);
    launch(composite_columns_kernel, colour_pixels, colours, sums, rough, channels, colour_height, colour_width,
           reach, tiny);
  }
  Tensor out_y = torch::stable::new_empty(y, y.sizes()), out_u = torch::stable::new_empty(u, u.sizes());
  Tensor out_v = torch::stable::new_empty(v, v.sizes());
  launch(composite_full_kernel, u.numel(), out_y.mutable_data_ptr(), out_u.mutable_data_ptr(),
         out_v.mutable_data_ptr(), y.const_data_ptr(), y.stride(0), u.const_data_ptr(), u.stride(0),
         v.const_data_ptr(), v.stride(0), back_y.const_data_ptr(), back_y.stride(0), back_u.const_data_ptr(),
         back_u.stride(0), back_v.const_data_ptr(), back_v.stride(0), rows_of(y), columns_of(y), rows_of(u),
         columns_of(u), horizontal, vertical, guided ? means : fits, colours, h, w, colour_height, colour_width,
         wide, decontaminate, peak, floor, ceiling, light_wrap);
  return {out_y, out_u, out_v};
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) { m.impl("composite", TORCH_BOX(&banet::composite_cuda)); }
#endif
