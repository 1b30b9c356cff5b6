// Compositing, per sample: the subject's own colour in the soft band (Germer et al. 2020; Forte 2021), the
// new background's light on it, and the blend, all on YUV samples as they are.
#pragma once
#include "upsample_alpha.h"

namespace banet {

// How much a matte pixel says about the subject's and the old background's colour.
BANET_HD float subject_weight(float alpha) { return alpha * alpha; }
BANET_HD float behind_weight(float alpha) { return (1.0f - alpha) * (1.0f - alpha); }

// The local mean colour; where its weights are next to nothing, the pixel's own.
BANET_HD float local_colour(float weighted, float weight, float own, float tiny) {
  return weight > tiny ? weighted / weight : own;
}

// The two colours predict the sample; what they miss goes to the subject in proportion to its cover.
BANET_HD float decontaminated(float sample, float cover, float subject, float behind) {
  return subject + cover * (sample - cover * subject - (1.0f - cover) * behind);
}

// Light of the new background on the subject's soft edge.
BANET_HD float wrapped(float colour, float ambient, float cover, float light_wrap) {
  return colour + light_wrap * (1.0f - cover) * (ambient - colour);
}

BANET_HD float blend(float colour, float background, float cover) {
  return background + cover * (colour - background);
}

// Alpha where chroma is sampled: on the even luma columns (H.264's default), mean of the rows.
BANET_HD float chroma_cover(float left, float middle, float right) {
  return (left + 2.0f * middle + right) * 0.25f;
}

}  // namespace banet
