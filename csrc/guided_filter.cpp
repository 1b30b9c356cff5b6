// guided_filter on the CPU. Only what the soft pixels' windows reach is looked at; sums over windows slide
// down by rows, in double, whose products of floats are exact.
#include "guided_filter.h"

#include <utility>

#include "matte_cpu.h"

namespace banet {

constexpr int guided_block = 64;  // rows that share one sliding sum

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

// Columns of the first pixel that is unsure, and of the one after the last.
std::pair<int, int> unsure_span(const float* low, const float* high, float unsure, int width) {
  int first = 0, end = width;
  while (first < end && !is_unsure(low[first], high[first], unsure)) ++first;
  while (first < end && !is_unsure(low[end - 1], high[end - 1], unsure)) --end;
  return {first, end};
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

Window wider(const Window& region, int margin, int height, int width) {
  return {most(region.top - margin, 0), least(region.bottom + margin, height), most(region.left - margin, 0),
          least(region.right + margin, width)};
}

// Sums over square windows: of products of planes, for the columns of a region, row after row.
class SlidingSums {
 public:
  // Every channel is a product of two planes [height, width].
  struct Channel {
    const float *one, *other;
  };

  SlidingSums(const Channel* channels, int count, int height, int width, int radius, const Window& region)
      : channels_(channels), count_(count), height_(height), width_(width), radius_(radius),
        region_left_(region.left), left_(most(region.left - radius, 0)), right_(least(region.right + radius, width)),
        first_(region.left - radius), columns_(region.right - region.left), pitch_(columns_ + 2 * radius + apart) {
    sums_ = scratch<double, 0>(static_cast<size_t>(2 * count + 3) * pitch_);
    out_ = sums_ + static_cast<size_t>(count) * pitch_;
    line_ = out_ + static_cast<size_t>(count) * pitch_;
    shares_ = line_ + 2 * pitch_;
    std::fill(sums_, out_, 0.0);
  }

  // Sums around row y of the region's columns, `pitch` apart by channel; y comes after the last one, or first.
  const double* around(int y) {
    const int first = most(y - radius_, 0), last = least(y + radius_ + 1, height_);
    if (end_ < 0) begin_ = end_ = first;
    for (; end_ < last; ++end_) add(end_, 1.0);
    for (; begin_ < first; ++begin_) add(begin_, -1.0);
    for (int x = 0; x < columns_; ++x) {
      const int column = region_left_ + x;
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
  const int count_, height_, width_, radius_, region_left_, left_, right_, first_, columns_, pitch_;
  int begin_ = 0, end_ = -1;
  double *sums_, *out_, *line_, *shares_;
};

// The least and the most around every pixel, [height, width] each, and the smallest region that holds all that are
// unsure.
Window find_unsure(float* lowest, float* highest, const float* alpha, int height, int width,
                   const GuidedOptions& options) {
  const int reach = options.reach;
  float* low = scratch<float, 15>(2 * static_cast<size_t>(width));
  float* high = low + width;
  Window region{height, 0, width, 0};
  for (int y = 0; y < height; ++y, lowest += width, highest += width) {
    const auto row = [&](int i) { return alpha + static_cast<size_t>(i) * width; };
    std::copy(row(y), row(y) + width, low);
    std::copy(row(y), row(y) + width, high);
    for (int i = most(y - reach, 0); i <= least(y + reach, height - 1); ++i) {
      if (i != y) extremes_line(low, high, row(i), row(i), width);
    }
    std::copy(low, low + width, lowest);
    std::copy(high, high + width, highest);
    for (int k = 1; k <= least(reach, width - 1); ++k) {
      extremes_line(lowest, highest, low + k, high + k, width - k);
      extremes_line(lowest + k, highest + k, low, high, width - k);
    }
    const auto [first, end] = unsure_span(lowest, highest, options.unsure, width);
    if (first < end) region = {least(region.top, y), y + 1, least(region.left, first), most(region.right, end)};
  }
  return region;
}

// planes: red, green, blue, alpha, ones, [height, width] each. fits: `fit_values` of these.
void fit_windows(float* fits, const float* const (&planes)[guided_values], int height, int width,
                 const Window& region, const GuidedOptions& options) {
  SlidingSums::Channel channels[guided_moments];
  for (int i = 0; i < guided_values; ++i) {
    for (int j = i; j < guided_values; ++j) {
      if (moment_of[i][j] >= 0) channels[moment_of[i][j]] = {planes[i], planes[j]};
    }
  }
  const size_t pixels = static_cast<size_t>(height) * width;
  parallel_blocks(region.bottom - region.top, guided_block, [&](int begin, int end) {
    SlidingSums sums(channels, guided_moments, height, width, options.radius, region);
    for (int y = region.top + begin; y < region.top + end; ++y) {
      const double* found = sums.around(y);
      fit_line(fits + static_cast<size_t>(y) * width + region.left, pixels, found, sums.pitch(), sums.shares(),
               options.epsilon, options.least_variance, options.tiny, region.right - region.left);
    }
  });
}

// Writes the unsure pixels of a region to `out`, which may be the plane of alpha: each is read once, before.
void follow(float* out, const float* const (&planes)[guided_values], const float* fits, const float* lowest,
            const float* highest, int height, int width, const Window& region, const GuidedOptions& options) {
  const size_t pixels = static_cast<size_t>(height) * width;
  SlidingSums::Channel channels[fit_values];
  for (int k = 0; k < fit_values; ++k) channels[k] = {fits + k * pixels, planes[4]};
  parallel_blocks(region.bottom - region.top, guided_block, [&](int begin, int end) {
    SlidingSums sums(channels, fit_values, height, width, options.radius, region);
    for (int y = region.top + begin; y < region.top + end; ++y) {
      const double* found = sums.around(y);
      for (int x = 0; x < region.right - region.left; ++x) {
        const size_t at = static_cast<size_t>(y) * width + region.left + x;
        if (!is_unsure(lowest[at], highest[at], options.unsure)) continue;
        double means[fit_values];
        for (int k = 0; k < fit_values; ++k) means[k] = found[k * sums.pitch() + x] * sums.shares()[x];
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
  const Window region = find_unsure(lowest, highest, out, height, width, options);
  if (region.top >= region.bottom) return result;
  const float* const planes[guided_values] = {memory, memory + pixels, memory + 2 * pixels, out, ones};
  const float* colours = static_cast<const float*>(image.const_data_ptr());
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < height; ++y) {
      clean_colours(memory + c * pixels + static_cast<size_t>(y) * width,
                    colours + c * image.stride(0) + y * image.stride(1), image.stride(2), width);
    }
  }
  std::fill(ones, ones + pixels, 1.0f);
  fit_windows(fits, planes, height, width, wider(region, options.radius, height, width), options);
  follow(out, planes, fits, lowest, highest, height, width, region, options);
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("guided_filter", TORCH_BOX(&banet::guided_filter_cpu));
}
