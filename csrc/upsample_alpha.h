// Guided alpha upsampling, per pixel: the fast guided filter (He and Sun 2015) fits
// alpha = slope * luma + offset in small windows of the matte; slope and offset are enlarged and applied
// to the full-size luma.
#pragma once
#include "common.h"
#include "resize.h"

namespace banet {

struct Fit {
  float slope, offset;
};

// Window means of guide g and alpha a, of g * a and of g * g.
BANET_HD Fit fit_alpha(float mean, float mean_alpha, float product, float square, float epsilon) {
  const float slope = (product - mean * mean_alpha) / (most(square - mean * mean, 0.0f) + epsilon);
  return {slope, mean_alpha - slope * mean};
}

// What is below `floor` or above `ceiling` leaves as exactly 0 or 1.
BANET_HD float apply_fit(float slope, float offset, float luma, float floor, float ceiling) {
  return clamp((slope * luma + offset - floor) / (ceiling - floor), 0.0f, 1.0f);
}

// Whether a fit gives exactly 0 or exactly 1 for every luma in 0..1. Enlarging is a convex combination, so
// a pixel whose fits all agree needs no arithmetic. The margin is far above float rounding.
constexpr uint8_t surely_background = 1, surely_subject = 2;

BANET_HD uint8_t certainty(float slope, float offset, float floor, float ceiling) {
  constexpr float margin = 1e-5f;
  const float low = offset + least(slope, 0.0f), high = offset + most(slope, 0.0f);
  return (high <= floor - margin ? surely_background : 0) | (low >= ceiling + margin ? surely_subject : 0);
}

}  // namespace banet
