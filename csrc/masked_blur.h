// The masked blur, per pixel: a normalised convolution whose weights leave the subject out.
#pragma once
#include "common.h"
#include "resize.h"

namespace banet {

// What a pixel weighs: how much of the background is seen there, and a trace everywhere, so that the
// middle of a large subject is filled from what surrounds it instead of being divided by nothing.
BANET_HD float blur_weight(float alpha, float trace) { return 1.0f - alpha + trace; }

}  // namespace banet
