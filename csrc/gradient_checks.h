// What sobel_gradient and refine_loss check on every device. Not seen by NVRTC.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace banet {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_image(const char* name, const char* argument, const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 4, name, ": ", argument, " must be [N, C, H, W], got ", t.dim(), " dimensions");
  STD_TORCH_CHECK(t.is_contiguous(), name, ": ", argument, " must be contiguous");
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double, name, ": ",
                  argument, " must be float32 or float64");
  STD_TORCH_CHECK(t.size(1) > 0 && t.size(2) > 0 && t.size(3) > 0, name, ": ", argument,
                  " must have channels, rows and columns");
}

inline void check_refine_inputs(const char* name, const Tensor& image, const Tensor& prediction,
                                const Tensor& mask) {
  check_image(name, "image", image);
  check_image(name, "prediction", prediction);
  check_image(name, "mask", mask);
  for (const Tensor* t : {&prediction, &mask}) {
    STD_TORCH_CHECK(t->scalar_type() == image.scalar_type() && t->size(0) == image.size(0) && t->size(1) == 1 &&
                        t->size(2) == image.size(2) && t->size(3) == image.size(3),
                    name, ": prediction and mask must be [N, 1, H, W] of the image's dtype and size");
  }
}

}  // namespace banet
