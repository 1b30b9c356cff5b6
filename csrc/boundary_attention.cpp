// boundary_attention on the CPU, forward and backward, a row at a time. Any strides, so that channels-last
// images stay what they are.
#include "boundary_attention.h"

#include <cstring>

#include "cpu.h"

namespace banet {

namespace {

constexpr int attention_block = 16;

// Where every output sample of one axis lies; see `between`.
template <typename R>
struct Positions {
  std::vector<int> first, second;
  std::vector<R> fraction;

  Positions(int source, int target) : first(target), second(target), fraction(target) {
    for (int i = 0; i < target; ++i) {
      const Between<R> b = between<R>(i, source, target);
      first[i] = b.first, second[i] = b.second, fraction[i] = b.fraction;
    }
  }
};

template <typename R>
inline __attribute__((always_inline)) void attend(R* __restrict out, const R* __restrict line,
                                                  const int* __restrict first, const int* __restrict second,
                                                  const R* __restrict fraction, R temperature, int width) {
  for (int x = 0; x < width; ++x) {
    out[x] = soft_sigmoid(lerp(line[first[x]], line[second[x]], fraction[x]), temperature);
  }
}

template <typename R>
inline __attribute__((always_inline)) void add_slopes(R* __restrict sums, const R* __restrict grad,
                                                      const R* __restrict value, R weight, R temperature,
                                                      int width) {
  for (int x = 0; x < width; ++x) sums[x] += weight * grad[x] * soft_sigmoid_slope(value[x], temperature);
}

}  // namespace

BANET_CLONES void attention_line(float* out, const float* line, const int* first, const int* second,
                                 const float* fraction, float temperature, int width) {
  attend(out, line, first, second, fraction, temperature, width);
}
void attention_line(double* out, const double* line, const int* first, const int* second,
                    const double* fraction, double temperature, int width) {
  attend(out, line, first, second, fraction, temperature, width);
}

BANET_CLONES void slope_line(float* sums, const float* grad, const float* value, float weight,
                             float temperature, int width) {
  add_slopes(sums, grad, value, weight, temperature, width);
}
void slope_line(double* sums, const double* grad, const double* value, double weight, double temperature,
                int width) {
  add_slopes(sums, grad, value, weight, temperature, width);
}

namespace {

// A [N, C, H, W] tensor's strides, in elements.
struct Strides {
  int64_t n, c, y, x;
  explicit Strides(const Tensor& t) : n(t.stride(0)), c(t.stride(1)), y(t.stride(2)), x(t.stride(3)) {}
};

template <typename T, typename R>
void load_line(R* out, const T* line, int64_t step, int width) {
  for (int x = 0; x < width; ++x) out[x] = static_cast<R>(to_float(line[x * step]));
}

template <typename T, typename R>
void store_line(T* out, const R* line, int64_t step, int width) {
  if constexpr (sizeof(T) == 8) for (int x = 0; x < width; ++x) out[x * step] = line[x];
  else for (int x = 0; x < width; ++x) out[x * step] = Store<T>::of(static_cast<float>(line[x]));
}

template <typename T>
void copy_line(T* out, int64_t out_step, const T* line, int64_t step, int width) {
  if (out_step == 1 && step == 1) std::memcpy(out, line, sizeof(T) * width);
  else for (int x = 0; x < width; ++x) out[x * out_step] = line[x * step];
}

template <typename T>
void copy_pixels(T* out, const Strides& to, const T* row, const Strides& of, int width) {
  if (to.c == 1 && to.x == 4 && of.c == 1 && of.x == 3) {  // both channels last: one walk, not three
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) out[4 * x + c] = row[3 * x + c];
    }
    return;
  }
  for (int c = 0; c < 3; ++c) copy_line(out + c * to.c, to.x, row + c * of.c, of.x, width);
}

template <typename R, typename Logit, typename Pixel>
void forward(const Tensor& out, const Tensor& logits, const Tensor& image, R temperature) {
  const Strides to(out), of(image), low(logits);
  const int height = static_cast<int>(image.size(2)), width = static_cast<int>(image.size(3));
  const int small_height = static_cast<int>(logits.size(2)), small_width = static_cast<int>(logits.size(3));
  const Positions<R> rows(small_height, height), columns(small_width, width);
  Pixel* result = static_cast<Pixel*>(out.mutable_data_ptr());
  const Pixel* pixels = static_cast<const Pixel*>(image.const_data_ptr());
  const Logit* source = static_cast<const Logit*>(logits.const_data_ptr());
  parallel_blocks(static_cast<int>(image.size(0)) * height, attention_block, [&](int begin, int end) {
    R* upper = scratch<R, 2>(2 * small_width + width);
    R *lower = upper + small_width, *line = lower + small_width;
    for (int i = begin; i < end; ++i) {
      const int n = i / height, y = i % height;
      Pixel* row = result + n * to.n + y * to.y;
      copy_pixels(row, to, pixels + n * of.n + y * of.y, of, width);
      load_line(upper, source + n * low.n + rows.first[y] * low.y, low.x, small_width);
      load_line(lower, source + n * low.n + rows.second[y] * low.y, low.x, small_width);
      for (int x = 0; x < small_width; ++x) upper[x] = lerp(upper[x], lower[x], rows.fraction[y]);
      attention_line(line, upper, columns.first.data(), columns.second.data(), columns.fraction.data(),
                     temperature, width);
      store_line(row + 3 * to.c, line, to.x, width);
    }
  });
}

// Gathers: every logit sums what its own output pixels pass back, in a fixed order.
template <typename R, typename Logit, typename Pixel>
void backward(const Tensor& out, const Tensor& grad, const Tensor& attention, R temperature) {
  const Strides from(grad), of(attention);
  const int height = static_cast<int>(grad.size(2)), width = static_cast<int>(grad.size(3));
  const int small_height = static_cast<int>(out.size(2)), small_width = static_cast<int>(out.size(3));
  const Positions<R> columns(small_width, width);
  const Pixel* grads = static_cast<const Pixel*>(grad.const_data_ptr());
  const Pixel* values = static_cast<const Pixel*>(attention.const_data_ptr());
  Logit* result = static_cast<Logit*>(out.mutable_data_ptr());
  parallel_blocks(static_cast<int>(out.size(0)) * small_height, 4, [&](int begin, int end) {
    R* sums = scratch<R, 2>(3 * width + small_width);
    R *line = sums + width, *value = line + width, *row = value + width;
    for (int i = begin; i < end; ++i) {
      const int n = i / small_height, tap = i % small_height;
      const Reach range = reach(tap, small_height, height);
      std::fill(sums, sums + width, R(0));
      for (int y = range.begin; y < range.end; ++y) {
        const R weight = share(between<R>(y, small_height, height), tap);
        if (weight == R(0)) continue;
        load_line(line, grads + n * from.n + y * from.y, from.x, width);
        load_line(value, values + n * of.n + y * of.y, of.x, width);
        slope_line(sums, line, value, weight, temperature, width);
      }
      std::fill(row, row + small_width, R(0));
      for (int x = 0; x < width; ++x) {
        row[columns.first[x]] += (R(1) - columns.fraction[x]) * sums[x];
        row[columns.second[x]] += columns.fraction[x] * sums[x];
      }
      store_line(result + static_cast<int64_t>(i) * small_width, row, 1, small_width);
    }
  });
}

// Calls use(T{}) with the C++ type of a floating-point dtype.
template <typename F>
void with_type(const char* argument, ScalarType dtype, const F& use) {
  if (dtype == ScalarType::Float) use(float{});
  else if (dtype == ScalarType::Double) use(double{});
  else if (dtype == ScalarType::Half) use(Half{});
  else if (dtype == ScalarType::BFloat16) use(BFloat16{});
  else STD_TORCH_CHECK(false, "boundary_attention: ", argument, " must be float64, float32, float16 or bfloat16");
}

}  // namespace

Tensor boundary_attention_cpu(const Tensor& logits, const Tensor& image, double temperature, bool channels_last) {
  STD_TORCH_CHECK(logits.dim() == 4 && logits.size(1) == 1, "boundary_attention: logits must be [N, 1, h, w]");
  STD_TORCH_CHECK(image.dim() == 4 && image.size(1) == 3, "boundary_attention: image must be [N, 3, H, W]");
  STD_TORCH_CHECK(logits.size(0) == image.size(0), "boundary_attention: logits and image must have one batch size");
  const int64_t n = image.size(0), height = image.size(2), width = image.size(3);
  Tensor out = channels_last ? torch::stable::new_empty(image, {n, height, width, 4})
                             : torch::stable::new_empty(image, {n, 4, height, width});
  if (channels_last) out = torch::stable::transpose(torch::stable::transpose(out, 1, 3), 2, 3);
  if (out.numel() == 0) return out;
  STD_TORCH_CHECK(logits.numel() > 0, "boundary_attention: logits must not be empty");
  with_type("logits", logits.scalar_type(), [&](auto logit) {
    with_type("image", image.scalar_type(), [&](auto pixel) {
      using Logit = decltype(logit);
      using Pixel = decltype(pixel);
      using R = std::conditional_t<sizeof(Logit) == 8 || sizeof(Pixel) == 8, double, float>;
      forward<R, Logit, Pixel>(out, logits, image, static_cast<R>(temperature));
    });
  });
  return out;
}

// grad, attention: [N, 1, H, W], what came back for the fourth channel and its value.
Tensor boundary_attention_backward_cpu(const Tensor& grad, const Tensor& attention, int64_t height,
                                       int64_t width, ScalarType dtype, double temperature) {
  STD_TORCH_CHECK(grad.dim() == 4 && attention.dim() == 4 && grad.numel() == attention.numel() &&
                      grad.size(2) == attention.size(2) && grad.scalar_type() == attention.scalar_type(),
                  "boundary_attention_backward: grad and attention must agree");
  Tensor out = torch::stable::new_empty(grad, {grad.size(0), 1, height, width}, dtype);
  if (grad.numel() == 0) return torch::stable::zero_(out);
  with_type("logits", dtype, [&](auto logit) {
    with_type("grad", grad.scalar_type(), [&](auto pixel) {
      using Logit = decltype(logit);
      using Pixel = decltype(pixel);
      using R = std::conditional_t<sizeof(Logit) == 8 || sizeof(Pixel) == 8, double, float>;
      backward<R, Logit, Pixel>(out, grad, attention, static_cast<R>(temperature));
    });
  });
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("boundary_attention", TORCH_BOX(&banet::boundary_attention_cpu));
  m.impl("boundary_attention_backward", TORCH_BOX(&banet::boundary_attention_backward_cpu));
}
