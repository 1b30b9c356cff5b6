// The matte on the CPU: everything composite and upsample_alpha compute at the matte's own size, and the
// walk over a frame's rows that finds the few pixels where arithmetic is needed.
#pragma once
#include "cpu.h"
#include "upsample_alpha.h"

namespace banet {

constexpr int matte_block = 32;  // rows per piece of work at the matte's size

struct AlphaOptions {
  bool guided;
  int radius;
  float epsilon, floor, ceiling;
};

// Per matte pixel: alpha = slope * luma + offset, and whether that is surely 0 or 1.
struct AlphaField {
  int height, width;
  float *slope, *offset;
  uint8_t* state;

  Plane<float> slopes() const { return {slope, height, width, width, 1}; }
  Plane<float> offsets() const { return {offset, height, width, width, 1}; }
};

// [h, w] alpha of any strides -> contiguous, cleaned.
void load_alpha(float* out, const Plane<float>& alpha);

// A plane at the matte's size.
template <typename T>
void shrink(float* out, const Plane<T>& plane, int height, int width);

// `guide`: luma samples at the matte's size, `peak` their largest value. Neither is read if not guided.
AlphaField alpha_field(const float* alpha, const float* guide, float peak, int height, int width,
                       const AlphaOptions& options);

// A plane of the matte's or the colours' size, enlarged for columns [begin, end) of one row of the frame.
void enlarge(float* out, const Plane<float>& plane, const Axis& rows, const Axis& columns, int row, int begin,
             int end);

void soft_alpha(float* out, const float* slope, const float* offset, const uint8_t* luma, float peak,
                float floor, float ceiling, int count);
void soft_alpha(float* out, const float* slope, const float* offset, const int16_t* luma, float peak,
                float floor, float ceiling, int count);

// The smallest rectangle of the matte that holds all soft pixels, `margin` wider on each side; empty
// (begin >= end) where all is certain.
struct Window {
  int top, bottom, left, right;
};

Window soft_window(const AlphaField& field, int margin);

struct Span {
  int begin, end;
  uint8_t state;  // surely_background, surely_subject or 0: soft
};

// Cuts a group of frame rows into spans of columns that are all background, all subject, or soft.
class SpanWalk {
 public:
  SpanWalk(const AlphaField& field, const Axis& rows, const Axis& columns);

  // Spans of rows [begin, end) together; valid until this thread's next call.
  const std::vector<Span>& spans(int begin, int end) const;

 private:
  const AlphaField& field_;
  const Axis &rows_, &columns_;
  std::vector<int> starts_;  // starts_[j]: the first frame column whose taps begin at matte column j or later
};

}  // namespace banet
