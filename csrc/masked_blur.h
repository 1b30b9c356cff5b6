// The masked blur, per pixel: a normalised convolution whose weights leave the subject out.
#pragma once
#include "common.h"
#include "resize.h"

namespace banet {

// What a pixel weighs: how much of the background is seen there, and a trace everywhere, so that the
// middle of a large subject is filled from what surrounds it instead of being divided by nothing.
BANET_HD float blur_weight(float alpha, float trace) { return 1.0f - alpha + trace; }

// The Gaussian is cut at 3 sigma. Taps are not normalised: their sum divides out of colour / weight.
BANET_HD int gaussian_radius(float sigma) {
  const int radius = static_cast<int>(3.0f * sigma);
  return most(static_cast<float>(radius) < 3.0f * sigma ? radius + 1 : radius, 1);
}

BANET_HD float gaussian_tap(int distance, float sigma) {
  const float z = static_cast<float>(distance) / sigma;
  return exponential(-0.5f * z * z);
}

}  // namespace banet
