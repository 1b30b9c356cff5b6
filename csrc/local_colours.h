// The colours around the subject's edge, for composite on the CPU: means over windows, found at a size of
// their own (a quarter of the matte's), and only where soft pixels ask for them.
#pragma once
#include "composite.h"
#include "matte_cpu.h"

namespace banet {

struct ColourOptions {
  int height, width;  // at which they are found
  int reach;          // of the windows there
  float tiny;         // a weight below it says nothing
  bool decontaminate;
  float light_wrap;

  bool wanted() const { return decontaminate || light_wrap > 0.0f; }
};

// Planes of the colours' size, one set per sample plane: the subject's own colour, the old background's, the
// new background's. Empty planes were not asked for.
struct Colours {
  Plane<float> subject[3] = {}, behind[3] = {}, ambient[3] = {};
};

// `small`: alpha, Y, U, V of the frame, then Y, U, V of the new background (read if there is light wrap), each
// of the colours' size.
Colours local_colours(const float* small, const Window& window, const ColourOptions& options);

}  // namespace banet
