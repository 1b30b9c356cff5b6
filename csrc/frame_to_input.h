// A frame's samples as network input, per pixel: YUV to RGB, clamped, normalised. Resizing is linear and
// commutes with the colour matrix, so each plane is resized from its own size and converted after.
#pragma once
#include "common.h"
#include "resize.h"

namespace banet {

// Everything that the colour encoding and the normalisation fix for a whole frame.
struct InputColour {
  float red, blue;                   // luma weights K_R and K_B
  float black, luma, grey, chroma;   // YuvScale of reference.py
  float mean[3], std[3];
};

BANET_HD void to_input(float y, float u, float v, const InputColour& c, float& red, float& green, float& blue) {
  y = (y - c.black) / c.luma, u = (u - c.grey) / c.chroma, v = (v - c.grey) / c.chroma;
  const float r = y + 2.0f * (1.0f - c.red) * v;
  const float b = y + 2.0f * (1.0f - c.blue) * u;
  const float g = (y - c.red * r - c.blue * b) / (1.0f - c.red - c.blue);
  red = (clamp(r, 0.0f, 1.0f) - c.mean[0]) / c.std[0];
  green = (clamp(g, 0.0f, 1.0f) - c.mean[1]) / c.std[1];
  blue = (clamp(b, 0.0f, 1.0f) - c.mean[2]) / c.std[2];
}

}  // namespace banet
