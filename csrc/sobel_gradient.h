// The paper's Gradient Calculation Layer, per pixel (3.3): min-max normalisation (eq. 12), Sobel (9),
// magnitude (10) and unit vector (11), and what each passes back.
#pragma once
#include "common.h"

namespace banet {

// Gradients of a normalised image below this are rounding, and count as none: magnitude and direction are
// 0 there, and nothing is passed back.
constexpr double gradient_floor = 1e-6;

// Luminance of colour images (BT.601's weights, as OpenCV has them); the mean of any other channels.
template <typename R>
BANET_HD R channel_weight(int channel, int channels) {
  if (channels != 3) return R(1) / R(channels);
  return channel == 0 ? R(0.299) : channel == 1 ? R(0.587) : R(0.114);
}

// Of one image: its smallest value and max - min. Flat images, and any that hold NaN or infinity, have
// scale 0: no gradient anywhere.
template <typename R>
struct Normal {
  R low, scale;

  BANET_HD R of(R value) const { return scale > R(0) ? (value - low) * scale : R(0); }
};

template <typename R>
BANET_HD Normal<R> normal_of(R low, R high) {
  const R span = high - low;
  // Finite and positive: infinity - infinity and NaN fail the last comparison.
  return {low, span > R(0) && span - span == R(0) ? R(1) / span : R(0)};
}

template <typename R>
struct Gradient {
  R x, y;
};

// Eq. (9) as the convolution it is written as: x grows to the right, y downwards. The nine neighbours, row
// by row; the edge pixel repeats.
template <typename R>
BANET_HD Gradient<R> sobel(R a, R b, R c, R d, R f, R g, R h, R i) {
  return {(c + R(2) * f + i) - (a + R(2) * d + g), (g + R(2) * h + i) - (a + R(2) * b + c)};
}

template <typename R>
struct Polar {
  R magnitude, x, y;
};

BANET_HD float root(float x) { return sqrtf(x); }
BANET_HD double root(double x) { return sqrt(x); }

template <typename R>
BANET_HD Polar<R> polar(Gradient<R> g) {
  const R square = g.x * g.x + g.y * g.y;
  const bool edge = square > R(gradient_floor * gradient_floor);
  const R magnitude = root(edge ? square : R(1));
  return {edge ? magnitude : R(0), edge ? g.x / magnitude : R(0), edge ? g.y / magnitude : R(0)};
}

// What comes back for magnitude and direction, passed on to the gradient.
template <typename R>
BANET_HD Gradient<R> polar_backward(Polar<R> p, R magnitude, R x, R y) {
  const bool edge = p.magnitude > R(0);
  const R along = p.x * x + p.y * y, inverse = R(1) / (edge ? p.magnitude : R(1));
  return {edge ? magnitude * p.x + (x - p.x * along) * inverse : R(0),
          edge ? magnitude * p.y + (y - p.y * along) * inverse : R(0)};
}

// Sobel's adjoint at a pixel: the nine neighbours' gradients' x (ax .. ix) and y parts, zero outside.
template <typename R>
BANET_HD R sobel_backward(R ax, R cx, R dx, R fx, R gx, R ix, R ay, R by, R cy, R gy, R hy, R iy) {
  return (ax + R(2) * dx + gx) - (cx + R(2) * fx + ix) + (ay + R(2) * by + cy) - (gy + R(2) * hy + iy);
}

}  // namespace banet
