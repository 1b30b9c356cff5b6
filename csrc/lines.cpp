// The vectorised inner loops of the CPU operators: each works on one line of samples. See cpu.h.
#include "cpu.h"

namespace banet {

Axis::Axis(int source_size, int target_size) : source(source_size), target(target_size), count(1) {
  first.resize(target);
  for (int i = 0; i < target; ++i) {
    const Taps taps = resize_taps(i, source, target);
    first[i] = taps.first;
    count = most(count, taps.count);
  }
  weight.resize(static_cast<size_t>(count) * target);
  for (int i = 0; i < target; ++i) {
    first[i] = least(first[i], source - count);  // padding taps weigh 0 and stay inside
    for (int k = 0; k < count; ++k) weight[k * target + i] = tap_weight(i, first[i] + k, source, target);
  }
}

std::shared_ptr<const Axis> axis(int source, int target) {
  static thread_local std::vector<std::shared_ptr<const Axis>> known;
  for (const auto& table : known) {
    if (table->source == source && table->target == target) return table;
  }
  if (known.size() == 32) known.erase(known.begin());  // far more than one video needs
  known.push_back(std::make_shared<const Axis>(source, target));
  return known.back();
}

// --- vertical ----------------------------------------------------------------------------------------------

namespace {

// Up to four rows at once: the line is written once instead of once per row.
template <int rows, int step, typename T>
inline __attribute__((always_inline)) void weigh(float* line, const T* const* row, const float* weight,
                                                 int64_t any_step, bool add, int begin, int end) {
  const int64_t stride = step ? step : any_step;
  for (int x = begin; x < end; ++x) {
    float sum = add ? line[x] : 0.0f;
    for (int k = 0; k < rows; ++k) sum += weight[k] * static_cast<float>(row[k][x * stride]);
    line[x] = sum;
  }
}

// Neighbouring columns four rows at a time, others (half of a UV plane, odd layouts) row by row.
template <typename T>
inline __attribute__((always_inline)) void weigh_rows(float* line, const T* const* row, const float* weight,
                                                      int rows, int64_t step, int begin, int end) {
  for (int k = 0; k < rows;) {
    const int left = step == 1 ? rows - k : 1;
    if (step == 2) weigh<1, 2>(line, row + k, weight + k, step, k > 0, begin, end);
    else if (step != 1) weigh<1, 0>(line, row + k, weight + k, step, k > 0, begin, end);
    else if (left >= 4) weigh<4, 1>(line, row + k, weight + k, step, k > 0, begin, end);
    else if (left == 3) weigh<3, 1>(line, row + k, weight + k, step, k > 0, begin, end);
    else if (left == 2) weigh<2, 1>(line, row + k, weight + k, step, k > 0, begin, end);
    else weigh<1, 1>(line, row + k, weight + k, step, k > 0, begin, end);
    k += least(left, 4);
  }
}

}  // namespace

// Not templates: target_clones wants plain functions.
BANET_CLONES void weigh_u8(float* line, const uint8_t* const* row, const float* weight, int rows,
                           int64_t step, int begin, int end) {
  weigh_rows(line, row, weight, rows, step, begin, end);
}
BANET_CLONES void weigh_i16(float* line, const int16_t* const* row, const float* weight, int rows,
                            int64_t step, int begin, int end) {
  weigh_rows(line, row, weight, rows, step, begin, end);
}
BANET_CLONES void weigh_f32(float* line, const float* const* row, const float* weight, int rows,
                            int64_t step, int begin, int end) {
  weigh_rows(line, row, weight, rows, step, begin, end);
}

inline void weigh_any(float* l, const uint8_t* const* r, const float* w, int n, int64_t s, int b, int e) {
  weigh_u8(l, r, w, n, s, b, e);
}
inline void weigh_any(float* l, const int16_t* const* r, const float* w, int n, int64_t s, int b, int e) {
  weigh_i16(l, r, w, n, s, b, e);
}
inline void weigh_any(float* l, const float* const* r, const float* w, int n, int64_t s, int b, int e) {
  weigh_f32(l, r, w, n, s, b, e);
}

template <typename T>
void combine_rows(float* line, const Plane<T>& plane, const Axis& axis, int target_row, int begin, int end) {
  const T** row = scratch<const T*, 0>(axis.count);
  float* weight = scratch<float, 1>(axis.count);
  int rows = 0;
  for (int k = 0; k < axis.count; ++k) {
    const float share = axis.weight[k * axis.target + target_row];
    if (share == 0.0f) continue;
    row[rows] = plane.row(axis.first[target_row] + k);
    weight[rows++] = share;
  }
  weigh_any(line, row, weight, rows, plane.step, begin, end);
}

template void combine_rows(float*, const Plane<uint8_t>&, const Axis&, int, int, int);
template void combine_rows(float*, const Plane<int16_t>&, const Axis&, int, int, int);
template void combine_rows(float*, const Plane<float>&, const Axis&, int, int, int);

// --- horizontal --------------------------------------------------------------------------------------------

namespace {

template <int taps>
inline __attribute__((always_inline)) void gather(float* out, const float* line, const int* first,
                                                  const float* weight, int count, int target, int begin,
                                                  int end) {
  for (int i = begin; i < end; ++i) {
    float sum = 0.0f;
    for (int k = 0; k < (taps ? taps : count); ++k) sum += weight[k * target + i] * line[first[i] + k];
    out[i] = sum;
  }
}

}  // namespace

BANET_CLONES void gather_taps(float* out, const float* line, const int* first, const float* weight, int count,
                              int target, int begin, int end) {
  if (count == 1) gather<1>(out, line, first, weight, count, target, begin, end);
  else if (count == 2) gather<2>(out, line, first, weight, count, target, begin, end);
  else if (count == 3) gather<3>(out, line, first, weight, count, target, begin, end);
  else if (count == 4) gather<4>(out, line, first, weight, count, target, begin, end);
  else if (count == 5) gather<5>(out, line, first, weight, count, target, begin, end);
  else gather<0>(out, line, first, weight, count, target, begin, end);
}

void combine_taps(float* out, const float* line, const Axis& axis, int begin, int end) {
  if (axis.source == axis.target) {
    std::copy(line + begin, line + end, out + begin);
  } else {
    gather_taps(out, line, axis.first.data(), axis.weight.data(), axis.count, axis.target, begin, end);
  }
}

// --- boxes -------------------------------------------------------------------------------------------------

BANET_CLONES void add_line(float* __restrict sums, const float* __restrict line, int count) {
  for (int x = 0; x < count; ++x) sums[x] += line[x];
}

namespace {

inline __attribute__((always_inline)) void window_of_three(float* __restrict out, const float* __restrict line,
                                                           float share, int width) {
  for (int x = 1; x < width - 1; ++x) out[x] = (line[x - 1] + line[x] + line[x + 1]) * share;
}

inline __attribute__((always_inline)) void window_of_any(float* __restrict out, const float* __restrict line,
                                                         float share, int radius, int width) {
  const int inner = width - radius;
  for (int x = radius; x < inner; ++x) out[x] = line[x - radius] * share;
  for (int k = 1 - radius; k <= radius; ++k) {
    for (int x = radius; x < inner; ++x) out[x] += line[x + k] * share;
  }
}

}  // namespace

BANET_CLONES void window_line(float* __restrict out, const float* __restrict line, int rows, int radius, int width) {
  const float share = 1.0f / static_cast<float>(rows * (2 * radius + 1));
  if (radius == 1) window_of_three(out, line, share, width);
  else window_of_any(out, line, share, radius, width);
  const auto border = [&](int x) {
    const int begin = most(x - radius, 0), end = least(x + radius + 1, width);
    float sum = 0.0f;
    for (int i = begin; i < end; ++i) sum += line[i];
    out[x] = sum / static_cast<float>(rows * (end - begin));
  };
  const int left = least(radius, width);
  for (int x = 0; x < left; ++x) border(x);
  for (int x = most(width - radius, left); x < width; ++x) border(x);
}

}  // namespace banet
