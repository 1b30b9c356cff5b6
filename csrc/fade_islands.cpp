// fade_islands and fill_holes on the CPU: what is connected is found serially, by union-find over the matte's
// pixels, and then the few soft ones are flooded from it.
#include "matte_cpu.h"

#include <algorithm>
#include <queue>

namespace banet {

namespace {

constexpr int water = -1;

// Of the set that pixel i is in: its first pixel. Paths are halved on the way.
int root_of(int* parent, int i) {
  while (parent[i] != i) {
    parent[i] = parent[parent[i]];
    i = parent[i];
  }
  return i;
}

void join(int* parent, int a, int b) {
  const int first = root_of(parent, a), second = root_of(parent, b);
  parent[most(first, second)] = least(first, second);
}

// parent[i]: a pixel before i, or i itself, that i touches by side or corner, directly or through others;
// water where alpha is not above `level`. By runs of pixels: most are within long ones.
void connect(int* parent, const float* alpha, int height, int width, float level) {
  for (int y = 0; y < height; ++y) {
    const float* values = alpha + static_cast<size_t>(y) * width;
    int* row = parent + static_cast<size_t>(y) * width;
    for (int x = 0; x < width;) {
      if (!(values[x] > level)) {
        row[x++] = water;
        continue;
      }
      const int first = x, root = y * width + first;
      for (; x < width && values[x] > level; ++x) row[x] = root;
      if (y == 0) continue;
      const int* above = row - width;
      bool within = false;  // a run above
      for (int u = most(first - 1, 0); u < least(x + 1, width); ++u) {
        if (above[u] != water && !within) join(parent, root, root - first - width + u);
        within = above[u] != water;
      }
    }
  }
}

struct Bounds {
  double floor, core, small_low, small_high, sure_low, sure_high, left_low, left_high;
};

struct Island {
  double mass, squares;
  std::vector<int> shore;  // soft pixels that touch it
};

double ramp(double value, double low, double high) { return clamp((value - low) / (high - low), 0.0, 1.0); }

// A matte as islands in shallows (the soft pixels around and between them) in water.
struct Map {
  int height, width;
  const float* alpha;  // [height, width]
  const int* island;   // [height, width]: its number; water elsewhere, in the shallows too
  float floor;         // shallows are above it
  std::vector<int> shallows;
  std::vector<Island> islands;

  template <typename F>
  void around(int i, F&& visit) const {
    const int y = i / width, x = i % width;
    for (int v = most(y - 1, 0); v <= least(y + 1, height - 1); ++v) {
      for (int u = most(x - 1, 0); u <= least(x + 1, width - 1); ++u) visit(v * width + u);
    }
  }
};

// Grey reconstruction, with islands as single nodes: `levels` (of the islands) become, and `depths` (of the
// shallows) are, the most that reaches them from any island, over no pixel with less alpha.
void flood(const Map& map, std::vector<float>& levels, float* depths) {
  for (const int i : map.shallows) depths[i] = 0.0f;
  std::priority_queue<std::pair<float, int>> rising;
  const auto raise = [&](int i, float level) {
    const float depth = least(level, map.alpha[i]);
    if (depth <= depths[i]) return;
    depths[i] = depth;
    rising.emplace(depth, i);
  };
  for (size_t n = 0; n < levels.size(); ++n) {
    for (const int i : map.islands[n].shore) raise(i, levels[n]);
  }
  while (!rising.empty()) {
    const auto [depth, i] = rising.top();
    rising.pop();
    if (depth < depths[i]) continue;  // raised again since
    map.around(i, [&, depth = depth](int j) {
      const int n = map.island[j];
      if (n == water) {
        if (map.alpha[j] > map.floor) raise(j, depth);
      } else if (levels[n] < depth) {
        levels[n] = depth;
        for (const int k : map.islands[n].shore) raise(k, depth);
      }
    });
  }
}

// `island` holds what connect left in it, and from then on numbers: as the islands' first pixels come.
Map map_of(const float* alpha, int* island, int height, int width, float floor) {
  Map map{height, width, alpha, island, floor, {}, {}};
  int last = water;
  double mass = 0.0, squares = 0.0;  // of the pixels of `last` since another came
  const auto add = [&] {
    if (last == water) return;
    map.islands[last].mass += mass, map.islands[last].squares += squares;
    mass = squares = 0.0;
  };
  for (int i = 0; i < height * width; ++i) {
    if (island[i] == water) {
      if (alpha[i] > floor) map.shallows.push_back(i);
      continue;
    }
    if (island[i] == i) {
      island[i] = static_cast<int>(map.islands.size());
      map.islands.push_back({0.0, 0.0, {}});
    } else {
      island[i] = island[island[i]];
    }
    if (island[i] != last) {
      add();
      last = island[i];
    }
    const double value = alpha[i];
    mass += value, squares += value * value;
  }
  add();
  for (const int i : map.shallows) {
    int seen = water;
    map.around(i, [&](int j) {
      if (island[j] != water && island[j] != seen) map.islands[seen = island[j]].shore.push_back(i);
    });
  }
  return map;
}

// How much alpha each island may have. `depths` is overwritten.
std::vector<float> kept_of(const Map& map, const Bounds& b, float* depths) {
  double largest = 0.0;
  for (const Island& island : map.islands) largest = most(largest, island.mass);
  std::vector<float> kept, bridges;
  for (const Island& island : map.islands) {
    const double size = ramp(island.mass / largest, b.small_low, b.small_high);
    const double sure = ramp(island.squares / island.mass, b.sure_low, b.sure_high);
    kept.push_back(static_cast<float>(most(size, sure)));
    bridges.push_back(kept.back() < 1.0f ? 0.0f : 1.0f);
  }
  if (std::count(bridges.begin(), bridges.end(), 0.0f)) {
    flood(map, bridges, depths);
    for (size_t n = 0; n < kept.size(); ++n) {
      kept[n] = most(kept[n], static_cast<float>(ramp(bridges[n], b.floor, b.core)));
    }
  }
  return kept;
}

// In place.
void fade(float* alpha, int height, int width, const Bounds& b) {
  const int pixels = height * width;
  int* island = scratch<int, 8>(pixels);
  connect(island, alpha, height, width, static_cast<float>(b.core));
  const Map map = map_of(alpha, island, height, width, static_cast<float>(b.floor));
  if (map.islands.empty()) return;
  float* depths = scratch<float, 9>(pixels);
  std::vector<float> levels = kept_of(map, b, depths);
  flood(map, levels, depths);
  const auto lower = [&](int i, float level) {
    if (level >= alpha[i]) return;
    alpha[i] = level * static_cast<float>(ramp(level / alpha[i], b.left_low, b.left_high));
  };
  for (const int i : map.shallows) lower(i, depths[i]);
  if (*std::min_element(levels.begin(), levels.end()) >= 1.0f) return;
  for (int i = 0; i < pixels; ++i) {
    if (island[i] != water) lower(i, levels[island[i]]);
  }
}

Tensor loaded(const char* op, const Tensor& alpha) {
  check_plane(op, "alpha", alpha, ScalarType::Float);
  STD_TORCH_CHECK(alpha.is_contiguous(), op, ": alpha must be contiguous");
  STD_TORCH_CHECK(alpha.numel() < (1 << 30), op, ": alpha is too large");
  const Tensor out = empty_plane(alpha, static_cast<int>(alpha.size(0)), static_cast<int>(alpha.size(1)));
  load_alpha(static_cast<float*>(out.mutable_data_ptr()), plane_of<float>(alpha));
  return out;
}

}  // namespace

static Tensor fade_islands_cpu(const Tensor& alpha, double floor, double core, double small_low,
                               double small_high, double sure_low, double sure_high, double left_low,
                               double left_high) {
  const Tensor out = loaded("fade_islands", alpha);
  fade(static_cast<float*>(out.mutable_data_ptr()), static_cast<int>(out.size(0)),
       static_cast<int>(out.size(1)),
       {floor, core, small_low, small_high, sure_low, sure_high, left_low, left_high});
  return out;
}

static Tensor fill_holes_cpu(const Tensor& alpha, double floor, double core, double small_low,
                             double small_high, double sure_low, double sure_high, double left_low,
                             double left_high) {
  const Tensor out = loaded("fill_holes", alpha);
  const size_t pixels = out.numel();
  float* result = static_cast<float*>(out.mutable_data_ptr());
  float* empty = scratch<float, 15>(pixels);
  for (size_t i = 0; i < pixels; ++i) empty[i] = 1.0f - result[i];
  fade(empty, static_cast<int>(out.size(0)), static_cast<int>(out.size(1)),
       {floor, core, small_low, small_high, sure_low, sure_high, left_low, left_high});
  // What did not fade comes back bit for bit.
  for (size_t i = 0; i < pixels; ++i) result[i] += (1.0f - result[i]) - empty[i];
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("fade_islands", TORCH_BOX(&banet::fade_islands_cpu));
  m.impl("fill_holes", TORCH_BOX(&banet::fill_holes_cpu));
}
