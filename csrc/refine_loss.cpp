// refine_loss on the CPU: per image one reduction (minimum and maximum), then one pass for the loss; the
// gradients are recomputed on the way back instead of kept.
#include "refine_loss.h"

#include "gradient_cpu.h"

namespace banet {

namespace {

template <typename R>
struct Pair {
  Normalised<R> image, prediction;
};

template <typename R>
Pair<R> normalise_both(const Pixels<R>& image, const Pixels<R>& prediction) {
  const size_t padded = static_cast<size_t>(image.height + 2) * (image.width + 2);
  R* memory = scratch<R, 24>(2 * padded);
  const Normalised<R> first = normalise(image, memory);
  return {first, normalise(prediction, memory + padded)};
}

// Polar gradients of row y of both into `line` [6, width].
template <typename R>
void polars_of_row(R* line, const Pair<R>& pair, int y, int width) {
  const Normalised<R> &a = pair.image, &b = pair.prediction;
  polar_line(line, line + width, line + 2 * width, a.row(y - 1), a.row(y), a.row(y + 1), width);
  polar_line(line + 3 * width, line + 4 * width, line + 5 * width, b.row(y - 1), b.row(y), b.row(y + 1), width);
}

template <typename R>
Polar<R> at(const R* line, int which, int x, int width) {
  const R* p = line + 3 * which * width + x;
  return {p[0], p[width], p[2 * width]};
}

// The sum of one image's masked losses. In double: it is a sum over a whole image.
template <typename R>
double forward(const Pixels<R>& image, const Pixels<R>& prediction, const R* mask, const RefineWeights<R>& weights) {
  const Pair<R> pair = normalise_both(image, prediction);
  const int height = image.height, width = image.width;
  std::vector<double> parts((height + gradient_block - 1) / gradient_block);
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    R* line = scratch<R, 2>(7 * width);
    R* loss = line + 6 * width;
    double sum = 0;
    for (int y = begin; y < end; ++y) {
      const R* row = mask + static_cast<int64_t>(y) * width;
      polars_of_row(line, pair, y, width);
      for (int x = 0; x < width; ++x) {
        loss[x] = row[x] * refine_pixel(at(line, 0, x, width), at(line, 1, x, width), weights);
      }
      for (int x = 0; x < width; ++x) sum += loss[x];
    }
    parts[begin / gradient_block] = sum;
  });
  double sum = 0;
  for (double part : parts) sum += part;
  return sum;
}

// to_image may be null.
template <typename R>
void backward(R* to_image, R* to_prediction, const Pixels<R>& image, const Pixels<R>& prediction, const R* mask,
              R grad, const RefineWeights<R>& weights) {
  const Pair<R> pair = normalise_both(image, prediction);
  const int height = image.height, width = image.width;
  GradientPlane<R> of_image{nullptr, height, width}, of_prediction{nullptr, height, width};
  of_image.data = scratch<R, 23>(2 * of_image.size());
  of_prediction.data = of_image.data + of_image.size();
  of_image.clear(), of_prediction.clear();
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    R* line = scratch<R, 2>(6 * width);
    for (int y = begin; y < end; ++y) {
      const R* row = mask + static_cast<int64_t>(y) * width;
      polars_of_row(line, pair, y, width);
      for (int x = 0; x < width; ++x) {
        const Polar<R> a = at(line, 0, x, width), b = at(line, 1, x, width);
        const Polar<R> back = refine_prediction_backward(a, b, weights, grad * row[x]);
        const Gradient<R> g = polar_backward(b, back.magnitude, back.x, back.y);
        of_prediction.row(0, y)[x] = g.x, of_prediction.row(1, y)[x] = g.y;
        if (!to_image) continue;
        const Polar<R> other = refine_image_backward(a, b, weights, grad * row[x]);
        const Gradient<R> h = polar_backward(a, other.magnitude, other.x, other.y);
        of_image.row(0, y)[x] = h.x, of_image.row(1, y)[x] = h.y;
      }
    }
  });
  gradient_backward(to_prediction, of_prediction, pair.prediction, prediction.channels);
  if (to_image) gradient_backward(to_image, of_image, pair.image, image.channels);
}

template <typename R>
R* values(const Tensor& t, int n) {
  return static_cast<R*>(t.mutable_data_ptr()) + n * (t.numel() / most<int64_t>(t.size(0), 1));
}

template <typename R>
Tensor loss_of(const Tensor& image, const Tensor& prediction, const Tensor& mask, const RefineWeights<double>& w) {
  const RefineWeights<R> weights{static_cast<R>(w.balance), static_cast<R>(w.direction),
                                 static_cast<R>(w.magnitude)};
  double sum = 0;
  for (int n = 0; n < image.size(0); ++n) {
    sum += forward(pixels_of<R>(image, n), pixels_of<R>(prediction, n), values<R>(mask, n), weights);
  }
  Tensor out = torch::stable::new_empty(image, std::vector<int64_t>{});
  *static_cast<R*>(out.mutable_data_ptr()) = static_cast<R>(sum);
  return out;
}

template <typename R>
void all_backward(const Tensor& to_image, const Tensor& to_prediction, const Tensor& grad, const Tensor& image,
                  const Tensor& prediction, const Tensor& mask, const RefineWeights<double>& w) {
  const RefineWeights<R> weights{static_cast<R>(w.balance), static_cast<R>(w.direction),
                                 static_cast<R>(w.magnitude)};
  for (int n = 0; n < image.size(0); ++n) {
    backward(to_image.numel() ? values<R>(to_image, n) : nullptr, values<R>(to_prediction, n),
             pixels_of<R>(image, n), pixels_of<R>(prediction, n), values<R>(mask, n),
             *static_cast<const R*>(grad.const_data_ptr()), weights);
  }
}

}  // namespace

// The sum of all masked losses, a scalar.
Tensor refine_loss_cpu(const Tensor& image, const Tensor& prediction, const Tensor& mask, double balance,
                       double direction, double magnitude) {
  check_refine_inputs("refine_loss", image, prediction, mask);
  const RefineWeights<double> weights{balance, direction, magnitude};
  if (image.scalar_type() == ScalarType::Float) return loss_of<float>(image, prediction, mask, weights);
  return loss_of<double>(image, prediction, mask, weights);
}

// Gradients for image (empty where not wanted) and prediction.
std::tuple<Tensor, Tensor> refine_loss_backward_cpu(const Tensor& grad, const Tensor& image,
                                                    const Tensor& prediction, const Tensor& mask, double balance,
                                                    double direction, double magnitude, bool want_image) {
  check_refine_inputs("refine_loss_backward", image, prediction, mask);
  STD_TORCH_CHECK(grad.numel() == 1 && grad.scalar_type() == image.scalar_type(),
                  "refine_loss_backward: grad must be a scalar of the image's dtype");
  Tensor to_image = want_image ? torch::stable::new_empty(image, image.sizes())
                               : torch::stable::new_empty(image, std::vector<int64_t>{0});
  Tensor to_prediction = torch::stable::new_empty(prediction, prediction.sizes());
  const RefineWeights<double> weights{balance, direction, magnitude};
  if (image.scalar_type() == ScalarType::Float) {
    all_backward<float>(to_image, to_prediction, grad, image, prediction, mask, weights);
  } else {
    all_backward<double>(to_image, to_prediction, grad, image, prediction, mask, weights);
  }
  return {to_image, to_prediction};
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("refine_loss", TORCH_BOX(&banet::refine_loss_cpu));
  m.impl("refine_loss_backward", TORCH_BOX(&banet::refine_loss_backward_cpu));
}
