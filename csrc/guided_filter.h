// The matte follows the picture's edges, per window and per pixel: alpha fitted as a linear function of colour
// (He, Sun and Tang 2013), windows weighted by how much of it their fit explains.
#pragma once
#include "common.h"

namespace banet {

// What is known of a window: red, green, blue, alpha and one, multiplied in pairs; these are the pairs.
constexpr int guided_values = 5, guided_moments = 14;  // all pairs but one with one
constexpr int moment_of[guided_values][guided_values] = {
    {0, 1, 2, 3, 4}, {1, 5, 6, 7, 8}, {2, 6, 9, 10, 11}, {3, 7, 10, 12, 13}, {4, 8, 11, 13, -1}};

// A window's fit times its weight, and the weight: what neighbouring fits are averaged by.
constexpr int fit_values = 6;
template <typename R>
struct WeightedFit {
  R values[fit_values];  // slopes by channel, offset, share explained, one
};

// Numbers that are none count as the mean colour, as it is normalised.
BANET_HD float clean_colour(float value) { return value - value == 0.0f ? value : 0.0f; }

// `spread`: channels' products of deviations, [r r, r g, r b, g g, g b, b b]; `covariance`: theirs and alpha's.
template <typename R>
BANET_HD WeightedFit<R> fit_colours(const R (&mean)[3], R mean_alpha, const R (&spread)[6], const R (&covariance)[3],
                                    R variance, R epsilon, R least_variance, R tiny) {
  // L D L^T; epsilon makes the matrix positive definite, and rounding may not take that away.
  const R d0 = spread[0] + epsilon, l1 = spread[1] / d0, l2 = spread[2] / d0;
  const R d1 = most(spread[3] + epsilon - l1 * spread[1], epsilon);
  const R below = spread[4] - l1 * spread[2], l3 = below / d1;
  const R d2 = most(spread[5] + epsilon - l2 * spread[2] - l3 * below, epsilon);
  const R y1 = covariance[1] - l1 * covariance[0], y2 = covariance[2] - l2 * covariance[0] - l3 * y1;
  const R blue = y2 / d2, green = y1 / d1 - l3 * blue, red = covariance[0] / d0 - l1 * green - l2 * blue;
  const R explained = red * covariance[0] + green * covariance[1] + blue * covariance[2];
  const R share = clamp(explained / (variance + least_variance), R(0), R(1));
  const R weight = variance < tiny ? R(0) : variance * share;
  const R offset = mean_alpha - red * mean[0] - green * mean[1] - blue * mean[2];
  return {{weight * red, weight * green, weight * blue, weight * offset, weight * share, weight}};
}

// `fits`: means of weighted fits around a pixel. Where they explain little, alpha stays; it never leaves what is
// around it, from `lowest` to `highest`.
template <typename R>
BANET_HD float follow_colours(float alpha, float lowest, float highest, const R (&fits)[fit_values], float red,
                              float green, float blue, float low, float high, float tiny) {
  if (!(fits[5] > R(tiny))) return alpha;
  const R filtered = (fits[0] * R(red) + fits[1] * R(green) + fits[2] * R(blue) + fits[3]) / fits[5];
  const R trust = clamp((fits[4] / fits[5] - R(low)) / (R(high) - R(low)), R(0), R(1));
  return static_cast<float>(R(alpha) + trust * (clamp(filtered, R(lowest), R(highest)) - R(alpha)));
}

// Whether a matte is soft, or has an edge, in a neighbourhood with these extremes.
BANET_HD bool is_unsure(float lowest, float highest, float unsure) {
  return highest > unsure && lowest < 1.0f - unsure;
}

struct GuidedOptions {
  int radius, reach;
  float epsilon, least_variance, low, high, unsure, tiny;
};

}  // namespace banet
