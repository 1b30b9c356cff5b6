// Temporal blend of mattes, per pixel: what hardly differs from the last matte is noise and follows slowly,
// what differs clearly has moved and is taken as it is.
#pragma once
#include "common.h"

namespace banet {

BANET_HD float steady_alpha(float alpha, float previous, float certain, float steady) {
  const float a = clean_alpha(alpha), b = clean_alpha(previous), change = a - b;
  const float trust = steady + (1.0f - steady) * least(most(change, -change) / certain, 1.0f);
  return b + trust * change;
}

}  // namespace banet
