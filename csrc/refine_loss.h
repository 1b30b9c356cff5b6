// The refine loss, per pixel (paper, 3.2): direction (eq. 5), magnitude (6), weighted (7).
#pragma once
#include "sobel_gradient.h"

namespace banet {

template <typename R>
struct RefineWeights {
  R balance, direction, magnitude;  // lambda, gamma_1, gamma_2
};

template <typename R>
BANET_HD R refine_pixel(Polar<R> image, Polar<R> prediction, const RefineWeights<R>& w) {
  const R dot = image.x * prediction.x + image.y * prediction.y;
  const R missing = w.balance * image.magnitude - prediction.magnitude;
  return w.direction * (R(1) - (dot < R(0) ? -dot : dot)) * prediction.magnitude +
         w.magnitude * (missing > R(0) ? missing : R(0));
}

// Its derivatives by magnitude and direction, times `grad`; `self` is the one asked for.
template <typename R>
BANET_HD Polar<R> refine_prediction_backward(Polar<R> image, Polar<R> prediction, const RefineWeights<R>& w,
                                             R grad) {
  const R dot = image.x * prediction.x + image.y * prediction.y;
  const R sign = dot > R(0) ? R(1) : dot < R(0) ? R(-1) : R(0);
  const R hinge = w.balance * image.magnitude - prediction.magnitude > R(0) ? w.magnitude : R(0);
  const R turn = -grad * w.direction * sign * prediction.magnitude;
  return {grad * (w.direction * (R(1) - sign * dot) - hinge), turn * image.x, turn * image.y};
}

template <typename R>
BANET_HD Polar<R> refine_image_backward(Polar<R> image, Polar<R> prediction, const RefineWeights<R>& w, R grad) {
  const R dot = image.x * prediction.x + image.y * prediction.y;
  const R sign = dot > R(0) ? R(1) : dot < R(0) ? R(-1) : R(0);
  const R hinge = w.balance * image.magnitude - prediction.magnitude > R(0) ? w.magnitude : R(0);
  const R turn = -grad * w.direction * sign * prediction.magnitude;
  return {grad * hinge * w.balance, turn * prediction.x, turn * prediction.y};
}

}  // namespace banet
