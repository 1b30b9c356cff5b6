// Boundary attention, per pixel (paper, 3.1 and eq. 2): bilinear enlargement with half-pixel centres, as
// torch.nn.functional.interpolate(align_corners=False) does it, then sigmoid(x / T).
#pragma once
#include "common.h"

namespace banet {

// Output sample `index` lies between source samples first and second, at `fraction`.
template <typename R>
struct Between {
  int first, second;
  R fraction;
};

template <typename R>
BANET_HD Between<R> between(int index, int source, int target) {
  const int64_t unit = 2 * static_cast<int64_t>(target);
  const int64_t position = most(static_cast<int64_t>(2 * index + 1) * source - target, static_cast<int64_t>(0));
  const int first = least(static_cast<int>(position / unit), source - 1);
  return {first, least(first + 1, source - 1), static_cast<R>(position - first * unit) / static_cast<R>(unit)};
}

// The weight that source sample `tap` has in an output sample.
template <typename R>
BANET_HD R share(const Between<R>& b, int tap) {
  return (b.first == tap ? R(1) - b.fraction : R(0)) + (b.second == tap ? b.fraction : R(0));
}

// Output samples [begin, end) hold all that source sample `tap` contributes to, and perhaps a few more.
struct Reach {
  int begin, end;
};

BANET_HD Reach reach(int tap, int source, int target) {
  const int64_t low = (static_cast<int64_t>(2 * tap - 1) * target) / (2 * static_cast<int64_t>(source)) - 2;
  const int64_t high = (static_cast<int64_t>(2 * tap + 3) * target) / (2 * static_cast<int64_t>(source)) + 2;
  return {tap == 0 ? 0 : static_cast<int>(most(low, static_cast<int64_t>(0))),
          tap == source - 1 ? target : static_cast<int>(least(high, static_cast<int64_t>(target)))};
}

template <typename R>
BANET_HD R lerp(R a, R b, R fraction) { return (R(1) - fraction) * a + fraction * b; }

template <typename R>
BANET_HD R soft_sigmoid(R x, R temperature) { return R(1) / (R(1) + exponential(-x / temperature)); }

// d sigmoid(x / T) / dx, from the sigmoid's value.
template <typename R>
BANET_HD R soft_sigmoid_slope(R value, R temperature) { return value * (R(1) - value) / temperature; }

}  // namespace banet
