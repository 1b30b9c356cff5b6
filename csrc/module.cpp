// All schemas, and the module `banet_stream._C` whose import registers them. What they compute is in
// banet_stream/reference.py, how the arguments are made in banet_stream/compiled.py.
#include <Python.h>
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(banet_stream, m) {
  m.def("boundary_attention(Tensor logits, Tensor image, float temperature, bool channels_last) -> Tensor");
  m.def(
      "boundary_attention_backward(Tensor grad, Tensor attention, int height, int width, ScalarType dtype, "
      "float temperature) -> Tensor");
  m.def(
      "frame_to_input(Tensor y, Tensor u, Tensor v, int height, int width, float[] scale, float[] mean, "
      "float[] std, ScalarType dtype, bool channels_last) -> Tensor");
  m.def(
      "upsample_alpha(Tensor alpha, Tensor luma, int depth, bool guided, int radius, float epsilon, "
      "float floor, float ceiling) -> Tensor");
  m.def(
      "composite(Tensor y, Tensor u, Tensor v, Tensor alpha, Tensor back_y, Tensor back_u, Tensor back_v, "
      "int depth, int horizontal, int vertical, bool guided, int radius, float epsilon, float floor, "
      "float ceiling, int colour_height, int colour_width, int reach, float tiny, bool decontaminate, "
      "float light_wrap) -> (Tensor, Tensor, Tensor)");
  m.def(
      "masked_blur(Tensor plane, Tensor alpha, int depth, int height, int width, float sigma, float trace) "
      "-> Tensor");
  m.def(
      "fade_islands(Tensor alpha, float floor, float core, float small_low, float small_high, "
      "float sure_low, float sure_high, float left_low, float left_high) -> Tensor");
  m.def(
      "fill_holes(Tensor alpha, float floor, float core, float small_low, float small_high, "
      "float sure_low, float sure_high, float left_low, float left_high) -> Tensor");
  m.def(
      "guided_filter(Tensor alpha, Tensor image, int radius, float epsilon, float least_variance, float low, "
      "float high, int reach, float unsure, float tiny) -> Tensor");
  m.def("steady_alpha(Tensor alpha, Tensor previous, float certain, float steady) -> Tensor");
  m.def("sobel_gradient(Tensor image) -> (Tensor, Tensor)");
  m.def("sobel_gradient_backward(Tensor magnitude, Tensor direction, Tensor image) -> Tensor");
  m.def(
      "refine_loss(Tensor image, Tensor prediction, Tensor mask, float balance, float direction, "
      "float magnitude) -> Tensor");
  m.def(
      "refine_loss_backward(Tensor grad, Tensor image, Tensor prediction, Tensor mask, float balance, "
      "float direction, float magnitude, bool want_image) -> (Tensor, Tensor)");
}

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr,
                                   nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
