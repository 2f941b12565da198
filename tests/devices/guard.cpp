// What a CPU-only torch lacks to let autograd take tensors that say they lie on cuda or mps: hooks that say the device is
// there, and guards that do nothing. `lookalike_hooks` must run before torch asks for them, so before `import torch`.
#include <cstring>

#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

struct CudaHooks : public at::CUDAHooksInterface {
  explicit CudaHooks(at::CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 2; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void init() const override {}
};

struct MpsHooks : public at::MPSHooksInterface {
  MpsHooks() = default;
  bool hasMPS() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void init() const override {}
};

template <c10::DeviceType D>
struct Guard final : public c10::impl::NoOpDeviceGuardImpl<D> {
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
  c10::Device getDevice() const override { return c10::Device(D, 0); }
  c10::Device exchangeDevice(c10::Device) const override { return c10::Device(D, 0); }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, c10::Device(D, 0)); }
};

Guard<c10::DeviceType::CUDA> cuda_guard;
Guard<c10::DeviceType::MPS> mps_guard;

}  // namespace

extern "C" void lookalike_hooks(const char* kind) {
  if (std::strcmp(kind, "cuda") == 0) {
    at::CUDAHooksRegistry()->Register("CUDAHooks", [](at::CUDAHooksArgs args) -> std::unique_ptr<at::CUDAHooksInterface> {
      return std::make_unique<CudaHooks>(args);
    });
  } else {
    at::MPSHooksRegistry()->Register("MPSHooks", []() -> std::unique_ptr<at::MPSHooksInterface> {
      return std::make_unique<MpsHooks>();
    });
  }
}

extern "C" void lookalike_guards() {
  c10::impl::device_guard_impl_registry[static_cast<size_t>(c10::DeviceType::CUDA)].store(&cuda_guard);
  c10::impl::device_guard_impl_registry[static_cast<size_t>(c10::DeviceType::MPS)].store(&mps_guard);
}
