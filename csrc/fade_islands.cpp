// fade_islands on the CPU: what is connected is found serially, by union-find over the matte's pixels.
#include "matte_cpu.h"

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
// water where alpha is not above the floor.
void connect(int* parent, const float* alpha, int height, int width, float floor) {
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const int i = y * width + x, above = i - width;
      if (!(alpha[i] > floor)) {
        parent[i] = water;
        continue;
      }
      if (y > 0 && parent[above] != water) {
        parent[i] = parent[above];  // which its neighbours are joined to already
        continue;
      }
      parent[i] = i;
      if (y > 0 && x > 0 && parent[above - 1] != water) {
        parent[i] = parent[above - 1];
      } else if (x > 0 && parent[i - 1] != water) {
        parent[i] = parent[i - 1];
      }
      if (y > 0 && x + 1 < width && parent[above + 1] != water) join(parent, i, above + 1);
    }
  }
}

struct Island {
  double mass, squares;
};

double ramp(double value, double low, double high) { return clamp((value - low) / (high - low), 0.0, 1.0); }

}  // namespace

static Tensor fade_islands_cpu(const Tensor& alpha, double floor, double small_low, double small_high,
                               double sure_low, double sure_high) {
  check_plane("fade_islands", "alpha", alpha, ScalarType::Float);
  STD_TORCH_CHECK(alpha.is_contiguous(), "fade_islands: alpha must be contiguous");
  const int height = static_cast<int>(alpha.size(0)), width = static_cast<int>(alpha.size(1));
  STD_TORCH_CHECK(alpha.numel() < (1 << 30), "fade_islands: alpha is too large");
  const int pixels = height * width;
  const Tensor out = empty_plane(alpha, height, width);
  float* result = static_cast<float*>(out.mutable_data_ptr());
  load_alpha(result, plane_of<float>(alpha));

  int* parent = scratch<int, 8>(pixels);
  connect(parent, result, height, width, static_cast<float>(floor));
  // Islands are numbered as their first pixels come; from then on parent holds numbers.
  std::vector<Island> islands;
  for (int i = 0; i < pixels; ++i) {
    if (parent[i] == water) continue;
    if (parent[i] == i) {
      parent[i] = static_cast<int>(islands.size());
      islands.push_back({0.0, 0.0});
    } else {
      parent[i] = parent[parent[i]];
    }
    const double value = result[i];
    islands[parent[i]].mass += value;
    islands[parent[i]].squares += value * value;
  }
  if (islands.size() < 2) return out;

  double largest = 0.0;
  for (const Island& island : islands) largest = most(largest, island.mass);
  std::vector<float> kept;
  for (const Island& island : islands) {
    const double size = ramp(island.mass / largest, small_low, small_high);
    kept.push_back(static_cast<float>(most(size, ramp(island.squares / island.mass, sure_low, sure_high))));
  }
  for (int i = 0; i < pixels; ++i) {
    if (parent[i] != water) result[i] *= kept[parent[i]];
  }
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("fade_islands", TORCH_BOX(&banet::fade_islands_cpu));
}
