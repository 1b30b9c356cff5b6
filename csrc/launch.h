// What the CUDA launchers share: device, stream, launch check. Not seen by NVRTC.
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <vector>

// Defined in libtorch_cuda; weak, so that the same source links everywhere. Stream::nativeHandle() is only
// there from torch 2.13.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace banet {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int threads = 256;

inline unsigned blocks_for(int64_t items) { return static_cast<unsigned>((items + threads - 1) / threads); }

// Makes the tensor's device current and gives its current stream; nothing here waits for the device, so
// launches can be captured in a CUDA graph.
class Launch {
 public:
  explicit Launch(const Tensor& t) : guard_(t.get_device_index()) {
    void* stream = nullptr;
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "torch was built without CUDA");
    aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream);
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // One thread per item.
  template <typename... Parameters, typename... Arguments>
  void operator()(void (*kernel)(Parameters...), int64_t items, Arguments... arguments) const {
    if (items > 0) kernel<<<blocks_for(items), threads, 0, stream_>>>(static_cast<Parameters>(arguments)...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename... Parameters, typename... Arguments>
  void grid(void (*kernel)(Parameters...), dim3 blocks, Arguments... arguments) const {
    kernel<<<blocks, threads, 0, stream_>>>(static_cast<Parameters>(arguments)...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

template <typename T>
const T* in(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }

template <typename T>
T* out(const Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); }

inline Tensor floats(const Tensor& like, int64_t count) {
  return torch::stable::new_empty(like, {count}, ScalarType::Float);
}

inline int rows_of(const Tensor& t) { return static_cast<int>(t.size(0)); }
inline int columns_of(const Tensor& t) { return static_cast<int>(t.size(1)); }

inline void check_samples(const char* name, const char* argument, const Tensor& t, int64_t depth) {
  const ScalarType dtype = depth == 8 ? ScalarType::Byte : ScalarType::Short;
  STD_TORCH_CHECK(t.dim() == 2 && t.numel() > 0, name, ": ", argument, " must be [H, W], not empty");
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, ": ", argument, " has the wrong dtype");
}

inline void check_alpha(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 2 && t.numel() > 0 && t.scalar_type() == ScalarType::Float, name,
                  ": alpha must be [h, w] float32, not empty");
}

}  // namespace banet
