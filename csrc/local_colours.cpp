// See local_colours.h.
#include "local_colours.h"

namespace banet {

// Lines `pitch` apart: the two weights, then each plane times both.
BANET_CLONES void weights_line(float* __restrict out, int pitch, const float* __restrict alpha, int width) {
  float *__restrict subject = out, *__restrict behind = out + pitch;
  for (int x = 0; x < width; ++x) subject[x] = subject_weight(alpha[x]), behind[x] = behind_weight(alpha[x]);
}

BANET_CLONES void weighted_line(float* __restrict out, int pitch, const float* __restrict weights,
                                const float* __restrict colour, int width) {
  const float *__restrict subject = weights, *__restrict behind = weights + pitch;
  float *__restrict a = out, *__restrict b = out + pitch;
  for (int x = 0; x < width; ++x) a[x] = subject[x] * colour[x], b[x] = behind[x] * colour[x];
}

BANET_CLONES void colour_line(float* __restrict out, const float* __restrict weighted,
                              const float* __restrict weight, const float* __restrict own, float tiny, int width) {
  for (int x = 0; x < width; ++x) out[x] = local_colour(weighted[x], weight[x], own[x], tiny);
}

Colours local_colours(const float* small, const Window& window, const ColourOptions& options) {
  const int height = options.height, width = options.width, reach = options.reach;
  const size_t pixels = static_cast<size_t>(height) * width;
  float* memory = scratch<float, 13>(9 * pixels);
  const auto plane = [&](int i) { return memory + i * pixels; };  // subject and behind by turns, then ambient
  const int owns = options.decontaminate ? 8 : 0, channels = owns + (options.light_wrap > 0.0f ? 3 : 0);
  const int left = most(window.left - reach, 0), columns = least(window.right + reach, width) - left;
  const int pitch = columns + apart;
  parallel_blocks(window.bottom - window.top, matte_block, [&](int block_begin, int block_end) {
    const int begin = window.top + block_begin, end = window.top + block_end;
    const int top = most(begin - reach, 0), bottom = least(end + reach, height);
    float* lines = scratch<float, 10>(static_cast<size_t>(bottom - top) * channels * pitch);
    const auto row = [&](int y) { return lines + static_cast<size_t>(y - top) * channels * pitch; };
    for (int y = top; y < bottom; ++y) {
      const float* at = small + static_cast<size_t>(y) * width + left;
      float* line = row(y);
      if (owns) {
        weights_line(line, pitch, at, columns);
        for (int p = 0; p < 3; ++p) weighted_line(line + (2 + 2 * p) * pitch, pitch, line, at + (1 + p) * pixels, columns);
      }
      for (int c = owns; c < channels; ++c) {
        const float* behind = at + (4 + c - owns) * pixels;
        std::copy(behind, behind + columns, line + c * pitch);
      }
    }
    box_means(row, channels, pitch, height, columns, reach, begin, end, [&](int y, const float* mean) {
      const size_t at = static_cast<size_t>(y) * width + left;
      for (int p = 0; owns && p < 3; ++p) {
        for (int which = 0; which < 2; ++which) {
          colour_line(plane(2 * p + which) + at, mean + (2 + 2 * p + which) * pitch, mean + which * pitch,
                      small + (1 + p) * pixels + at, options.tiny, columns);
        }
      }
      for (int c = owns; c < channels; ++c) {
        std::copy(mean + c * pitch, mean + c * pitch + columns, plane(6 + c - owns) + at);
      }
    });
  });
  const auto view = [&](int i) { return Plane<float>{plane(i), height, width, width, 1}; };
  Colours colours;
  for (int p = 0; p < 3; ++p) {
    if (owns) colours.subject[p] = view(2 * p), colours.behind[p] = view(2 * p + 1);
    if (channels > owns) colours.ambient[p] = view(6 + p);
  }
  return colours;
}

}  // namespace banet
