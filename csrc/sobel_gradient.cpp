// sobel_gradient on the CPU, forward and backward.
#include "sobel_gradient.h"

#include "gradient_cpu.h"

namespace banet {

namespace {

template <typename R>
void forward(R* magnitude, R* direction, const Pixels<R>& image) {
  const int height = image.height, width = image.width;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const Normalised<R> n = luminance(image, scratch<R, 22>(static_cast<size_t>(height + 2) * (width + 2)));
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    // Three normalised rows at a time stay in the cache; the whole plane would go through memory again.
    const int pitch = width + 2;
    R* lines = scratch<R, 2>(3 * static_cast<size_t>(pitch));
    const auto line = [&](int y) { return lines + (y + 1) % 3 * pitch + 1; };
    const auto load = [&](int y) {
      const R* from = n.row(most(0, least(y, height - 1)));
      std::copy(from, from + width, line(y));
      normalise_row(line(y), n.normal, width);
    };
    load(begin - 1), load(begin);
    for (int y = begin; y < end; ++y) {
      const int64_t at = static_cast<int64_t>(y) * width;
      load(y + 1);
      polar_line(magnitude + at, direction + at, direction + pixels + at, line(y - 1), line(y), line(y + 1), width);
    }
  });
}

template <typename R>
void backward(R* out, const R* magnitude, const R* direction, const Pixels<R>& image) {
  const int height = image.height, width = image.width;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const Normalised<R> n = normalise(image, scratch<R, 22>(static_cast<size_t>(height + 2) * (width + 2)));
  GradientPlane<R> gradients{nullptr, height, width};
  gradients.data = scratch<R, 23>(gradients.size());
  gradients.clear();
  parallel_blocks(height, gradient_block, [&](int begin, int end) {
    R* line = scratch<R, 2>(3 * width);
    for (int y = begin; y < end; ++y) {
      const int64_t at = static_cast<int64_t>(y) * width;
      R *m = line, *vx = line + width, *vy = vx + width;
      polar_line(m, vx, vy, n.row(y - 1), n.row(y), n.row(y + 1), width);
      R *to_x = gradients.row(0, y), *to_y = gradients.row(1, y);
      for (int x = 0; x < width; ++x) {
        const Gradient<R> g = polar_backward(Polar<R>{m[x], vx[x], vy[x]}, magnitude[at + x], direction[at + x],
                                             direction[pixels + at + x]);
        to_x[x] = g.x, to_y[x] = g.y;
      }
    }
  });
  gradient_backward(out, gradients, n, image.channels);
}

template <typename R>
R* image_of(const Tensor& t, int n) {
  return static_cast<R*>(t.mutable_data_ptr()) + n * (t.numel() / t.size(0));
}

}  // namespace

std::tuple<Tensor, Tensor> sobel_gradient_cpu(const Tensor& image) {
  check_image("sobel_gradient", "image", image);
  const int64_t batch = image.size(0), height = image.size(2), width = image.size(3);
  Tensor magnitude = torch::stable::new_empty(image, {batch, 1, height, width});
  Tensor direction = torch::stable::new_empty(image, {batch, 2, height, width});
  for (int n = 0; n < batch; ++n) {
    if (image.scalar_type() == ScalarType::Float) {
      forward(image_of<float>(magnitude, n), image_of<float>(direction, n), pixels_of<float>(image, n));
    } else {
      forward(image_of<double>(magnitude, n), image_of<double>(direction, n), pixels_of<double>(image, n));
    }
  }
  return {magnitude, direction};
}

Tensor sobel_gradient_backward_cpu(const Tensor& magnitude, const Tensor& direction, const Tensor& image) {
  check_image("sobel_gradient_backward", "image", image);
  STD_TORCH_CHECK(magnitude.is_contiguous() && direction.is_contiguous() &&
                      magnitude.scalar_type() == image.scalar_type() &&
                      direction.scalar_type() == image.scalar_type() &&
                      magnitude.numel() * image.size(1) == image.numel() &&
                      direction.numel() == 2 * magnitude.numel(),
                  "sobel_gradient_backward: the gradients must be contiguous and agree with the image");
  Tensor out = torch::stable::new_empty(image, image.sizes());
  for (int n = 0; n < image.size(0); ++n) {
    if (image.scalar_type() == ScalarType::Float) {
      backward<float>(image_of<float>(out, n), image_of<float>(magnitude, n), image_of<float>(direction, n),
                      pixels_of<float>(image, n));
    } else {
      backward<double>(image_of<double>(out, n), image_of<double>(magnitude, n), image_of<double>(direction, n),
                       pixels_of<double>(image, n));
    }
  }
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("sobel_gradient", TORCH_BOX(&banet::sobel_gradient_cpu));
  m.impl("sobel_gradient_backward", TORCH_BOX(&banet::sobel_gradient_backward_cpu));
}
