// guided_filter on the CPU. Only what the windows of unsure pixels reach is looked at: tiles, runs of columns in
// blocks of rows. Sums over windows slide down a tile's rows, in double, whose products of floats are exact.
#include "guided_filter.h"

#include <cstring>
#include <tuple>
#include <utility>

#include "matte_cpu.h"

namespace banet {

constexpr int guided_block = 32;  // rows of a tile

BANET_CLONES void add_products(double* __restrict sums, const float* __restrict one, const float* __restrict other,
                               double sign, int count) {
  for (int x = 0; x < count; ++x) sums[x] += sign * static_cast<double>(one[x]) * static_cast<double>(other[x]);
}

namespace {

inline __attribute__((always_inline)) void add_lines(double* __restrict out, const double* one, const double* other,
                                                     int count) {
  for (int x = 0; x < count; ++x) out[x] = one[x] + other[x];
}

inline __attribute__((always_inline)) void add_line_of(double* __restrict sums, const double* line, int count) {
  for (int x = 0; x < count; ++x) sums[x] += line[x];
}

}  // namespace

// out[x] = line[x] + ... + line[x + width - 1], for an odd width; `line` has width - 1 values more, and it and
// `spare` are used up.
BANET_CLONES void slide_line(double* __restrict out, double* line, double* spare, int width, int count) {
  std::copy(line, line + count, out);
  int done = 1, length = count + width - 1;
  for (int power = 1; 2 * power <= width; power *= 2) {
    length -= power;
    add_lines(spare, line, line + power, length);  // sums of 2 * power values
    std::swap(line, spare);
    if (width & 2 * power) {
      add_line_of(out, line + done, count);
      done += 2 * power;
    }
  }
}

BANET_CLONES void clean_colours(float* __restrict out, const float* __restrict row, int64_t step, int width) {
  if (step == 1) for (int x = 0; x < width; ++x) out[x] = clean_colour(row[x]);
  else for (int x = 0; x < width; ++x) out[x] = clean_colour(row[x * step]);
}

BANET_CLONES void extremes_line(float* __restrict low, float* __restrict high, const float* lows, const float* highs,
                                int count) {
  for (int x = 0; x < count; ++x) low[x] = least(low[x], lows[x]), high[x] = most(high[x], highs[x]);
}

BANET_CLONES void mark_unsure(uint8_t* __restrict marks, const float* low, const float* high, float unsure, int count) {
  for (int x = 0; x < count; ++x) marks[x] = is_unsure(low[x], high[x], unsure);
}

BANET_CLONES void join_marks(uint8_t* __restrict marks, const uint8_t* __restrict others, int count) {
  for (int x = 0; x < count; ++x) marks[x] |= others[x];
}

// sums: of `guided_moments`, `pitch` apart, over windows that have 1 / share[x] pixels each; out: `fit_values`
// planes, `pixels` apart.
BANET_CLONES void fit_line(float* __restrict out, int64_t pixels, const double* __restrict sums, int pitch,
                           const double* __restrict share, double epsilon, double least_variance, double tiny,
                           int count) {
#pragma GCC ivdep  // the planes do not overlap
  for (int x = 0; x < count; ++x) {
    const auto mean = [&](int i, int j) { return sums[moment_of[i][j] * pitch + x] * share[x]; };
    const double red = mean(0, 4), green = mean(1, 4), blue = mean(2, 4), alpha = mean(3, 4);
    const double means[3] = {red, green, blue};
    const double spread[6] = {mean(0, 0) - red * red,     mean(0, 1) - red * green,  mean(0, 2) - red * blue,
                              mean(1, 1) - green * green, mean(1, 2) - green * blue, mean(2, 2) - blue * blue};
    const double covariance[3] = {mean(0, 3) - red * alpha, mean(1, 3) - green * alpha, mean(2, 3) - blue * alpha};
    const WeightedFit<double> fit = fit_colours<double>(means, alpha, spread, covariance, mean(3, 3) - alpha * alpha,
                                                        epsilon, least_variance, tiny);
    for (int k = 0; k < fit_values; ++k) out[k * pixels + x] = static_cast<float>(fit.values[k]);
  }
}

namespace {

// Rows [begin, end) that hold all marks of a plane [height, width].
std::pair<int, int> marked_rows(const uint8_t* marks, int height, int width) {
  const auto empty = [&](int y) { return !std::memchr(marks + static_cast<size_t>(y) * width, 1, width); };
  int begin = 0, end = height;
  while (begin < end && empty(begin)) ++begin;
  while (begin < end && empty(end - 1)) --end;
  return {begin, end};
}

// Of columns from `from` on the first run [begin, end) of marked ones and of gaps shorter than `gap` between them.
std::pair<int, int> next_run(const uint8_t* marks, int from, int width, int gap) {
  while (from < width && !marks[from]) ++from;
  int end = from;
  for (int x = from; x < least(end + gap, width); ++x) {
    if (marks[x]) end = x + 1;
  }
  return {from, end};
}

// Calls work(tile) for tiles that hold, together, all pixels that are at most `margin` rows and columns away from
// a mark. No two overlap.
template <typename F>
void visit_marked(const uint8_t* marks, int height, int width, int margin, int gap, const F& work) {
  const auto [first, last] = marked_rows(marks, height, width);
  if (first == last) return;
  const int top = most(first - margin, 0), bottom = least(last + margin, height);
  parallel_blocks(bottom - top, guided_block, [&, top = top](int begin, int end) {
    uint8_t* columns = scratch<uint8_t, 2>(width);
    std::fill(columns, columns + width, uint8_t{0});
    for (int y = most(top + begin - margin, 0); y < least(top + end + margin, height); ++y) {
      join_marks(columns, marks + static_cast<size_t>(y) * width, width);
    }
    auto [left, right] = next_run(columns, 0, width, gap);
    for (; left < width; std::tie(left, right) = next_run(columns, right, width, gap)) {
      work(Window{top + begin, top + end, most(left - margin, 0), least(right + margin, width)});
    }
  });
}

// Sums over square windows: of products of planes, for the columns of a tile, row after row.
class SlidingSums {
 public:
  // Every channel is a product of two planes [height, width].
  struct Channel {
    const float *one, *other;
  };

  SlidingSums(const Channel* channels, int count, int height, int width, int radius, const Window& tile)
      : channels_(channels), count_(count), height_(height), width_(width), radius_(radius), tile_left_(tile.left),
        left_(most(tile.left - radius, 0)), right_(least(tile.right + radius, width)), first_(tile.left - radius),
        columns_(tile.right - tile.left), pitch_(columns_ + 2 * radius + apart) {
    sums_ = scratch<double, 0>(static_cast<size_t>(2 * count + 3) * pitch_);
    out_ = sums_ + static_cast<size_t>(count) * pitch_;
    line_ = out_ + static_cast<size_t>(count) * pitch_;
    shares_ = line_ + 2 * pitch_;
    std::fill(sums_, out_, 0.0);
  }

  // Sums around row y of the tile's columns, `pitch` apart by channel; y comes after the last one, or first.
  const double* around(int y) {
    const int first = most(y - radius_, 0), last = least(y + radius_ + 1, height_);
    if (end_ < 0) begin_ = end_ = first;
    for (; end_ < last; ++end_) add(end_, 1.0);
    for (; begin_ < first; ++begin_) add(begin_, -1.0);
    for (int x = 0; x < columns_; ++x) {
      const int column = tile_left_ + x;
      shares_[x] = 1.0 / ((last - first) * (least(column + radius_ + 1, width_) - most(column - radius_, 0)));
    }
    for (int c = 0; c < count_; ++c) {
      std::copy(sums_ + c * pitch_, sums_ + c * pitch_ + columns_ + 2 * radius_, line_);
      slide_line(out_ + c * pitch_, line_, line_ + pitch_, 2 * radius_ + 1, columns_);
    }
    return out_;
  }

  int pitch() const { return pitch_; }

  // Of the row asked for last: 1 / how many pixels of the picture a window has.
  const double* shares() const { return shares_; }

 private:
  void add(int row, double sign) {
    const int64_t at = static_cast<int64_t>(row) * width_ + left_;
    for (int c = 0; c < count_; ++c) {
      add_products(sums_ + c * pitch_ + (left_ - first_), channels_[c].one + at, channels_[c].other + at, sign,
                   right_ - left_);
    }
  }

  const Channel* channels_;
  const int count_, height_, width_, radius_, tile_left_, left_, right_, first_, columns_, pitch_;
  int begin_ = 0, end_ = -1;
  double *sums_, *out_, *line_, *shares_;
};

// The least and the most around every pixel and marks where it is unsure, [height, width] each.
void look_around(float* lowest, float* highest, uint8_t* unsure, const float* alpha, int height, int width,
                 const GuidedOptions& options) {
  const int reach = options.reach;
  parallel_blocks(height, guided_block, [&](int begin, int end) {
    float* low = scratch<float, 15>(2 * static_cast<size_t>(width));
    float* high = low + width;
    for (int y = begin; y < end; ++y) {
      const size_t at = static_cast<size_t>(y) * width;
      const auto row = [&](int i) { return alpha + static_cast<size_t>(i) * width; };
      std::copy(row(y), row(y) + width, low);
      std::copy(row(y), row(y) + width, high);
      for (int i = most(y - reach, 0); i <= least(y + reach, height - 1); ++i) {
        if (i != y) extremes_line(low, high, row(i), row(i), width);
      }
      float *least_around = lowest + at, *most_around = highest + at;
      std::copy(low, low + width, least_around);
      std::copy(high, high + width, most_around);
      for (int k = 1; k <= least(reach, width - 1); ++k) {
        extremes_line(least_around, most_around, low + k, high + k, width - k);
        extremes_line(least_around + k, most_around + k, low, high, width - k);
      }
      mark_unsure(unsure + at, least_around, most_around, options.unsure, width);
    }
  });
}

// planes: red, green, blue, alpha, ones, [height, width] each. fits: `fit_values` of these.
void fit_windows(float* fits, const float* const (&planes)[guided_values], const uint8_t* unsure, int height,
                 int width, const GuidedOptions& options) {
  SlidingSums::Channel channels[guided_moments];
  for (int i = 0; i < guided_values; ++i) {
    for (int j = i; j < guided_values; ++j) {
      if (moment_of[i][j] >= 0) channels[moment_of[i][j]] = {planes[i], planes[j]};
    }
  }
  const size_t pixels = static_cast<size_t>(height) * width;
  visit_marked(unsure, height, width, options.radius, 4 * options.radius, [&](const Window& tile) {
    SlidingSums sums(channels, guided_moments, height, width, options.radius, tile);
    for (int y = tile.top; y < tile.bottom; ++y) {
      const double* found = sums.around(y);
      fit_line(fits + static_cast<size_t>(y) * width + tile.left, pixels, found, sums.pitch(), sums.shares(),
               options.epsilon, options.least_variance, options.tiny, tile.right - tile.left);
    }
  });
}

// Writes the unsure pixels to `out`, which may be the plane of alpha: each is read once, before.
void follow(float* out, const float* const (&planes)[guided_values], const float* fits, const float* lowest,
            const float* highest, const uint8_t* unsure, int height, int width, const GuidedOptions& options) {
  const size_t pixels = static_cast<size_t>(height) * width;
  SlidingSums::Channel channels[fit_values];
  for (int k = 0; k < fit_values; ++k) channels[k] = {fits + k * pixels, planes[4]};
  visit_marked(unsure, height, width, 0, 4 * options.radius, [&](const Window& tile) {
    SlidingSums sums(channels, fit_values, height, width, options.radius, tile);
    for (int y = tile.top; y < tile.bottom; ++y) {
      const double* found = sums.around(y);
      for (int x = tile.left; x < tile.right; ++x) {
        const size_t at = static_cast<size_t>(y) * width + x;
        if (!unsure[at]) continue;
        double means[fit_values];
        for (int k = 0; k < fit_values; ++k) {
          means[k] = found[k * sums.pitch() + x - tile.left] * sums.shares()[x - tile.left];
        }
        out[at] = follow_colours<double>(planes[3][at], lowest[at], highest[at], means, planes[0][at],
                                         planes[1][at], planes[2][at], options.low, options.high, options.tiny);
      }
    }
  });
}

}  // namespace

static Tensor guided_filter_cpu(const Tensor& alpha, const Tensor& image, int64_t radius, double epsilon,
                                double least_variance, double low, double high, int64_t reach, double unsure,
                                double tiny) {
  check_plane("guided_filter", "alpha", alpha, ScalarType::Float);
  STD_TORCH_CHECK(image.dim() == 3 && image.size(0) == 3 && image.size(1) == alpha.size(0) &&
                      image.size(2) == alpha.size(1) && image.scalar_type() == ScalarType::Float,
                  "guided_filter: image must be [3, h, w] float32, alpha [h, w]");
  const GuidedOptions options{static_cast<int>(radius), static_cast<int>(reach), static_cast<float>(epsilon),
                              static_cast<float>(least_variance), static_cast<float>(low), static_cast<float>(high),
                              static_cast<float>(unsure), static_cast<float>(tiny)};
  const Plane<float> matte = plane_of<float>(alpha);
  const int height = matte.height, width = matte.width;
  const size_t pixels = static_cast<size_t>(height) * width;
  const Tensor result = empty_plane(alpha, height, width);
  float* out = static_cast<float*>(result.mutable_data_ptr());
  load_alpha(out, matte);
  float* memory = scratch<float, 16>((4 + fit_values + 2) * pixels);
  float *ones = memory + 3 * pixels, *fits = ones + pixels;
  float *lowest = fits + fit_values * pixels, *highest = lowest + pixels;
  uint8_t* marks = scratch<uint8_t, 3>(pixels);
  look_around(lowest, highest, marks, out, height, width, options);
  const float* const planes[guided_values] = {memory, memory + pixels, memory + 2 * pixels, out, ones};
  const float* colours = static_cast<const float*>(image.const_data_ptr());
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < height; ++y) {
      clean_colours(memory + c * pixels + static_cast<size_t>(y) * width,
                    colours + c * image.stride(0) + y * image.stride(1), image.stride(2), width);
    }
  }
  std::fill(ones, ones + pixels, 1.0f);
  fit_windows(fits, planes, marks, height, width, options);
  follow(out, planes, fits, lowest, highest, marks, height, width, options);
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("guided_filter", TORCH_BOX(&banet::guided_filter_cpu));
}
