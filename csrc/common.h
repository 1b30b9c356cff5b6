// What every operator's header needs, for g++, nvcc and NVRTC alike: no standard library here.
#pragma once

#if defined(__CUDACC__)
#define BANET_HD __host__ __device__ __forceinline__
#else
#define BANET_HD inline
#endif

#if defined(__CUDACC_RTC__)
using int16_t = short;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
#else
#include <cmath>
#include <cstdint>
#endif

namespace banet {

template <typename T>
BANET_HD T least(T a, T b) { return a < b ? a : b; }

template <typename T>
BANET_HD T most(T a, T b) { return a > b ? a : b; }

template <typename T>
BANET_HD T clamp(T value, T low, T high) { return value < low ? low : value > high ? high : value; }

BANET_HD float from_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

BANET_HD uint32_t to_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

// --- 16-bit floats as stored; arithmetic is always float -------------------------------------------
// Written out (round to nearest, ties to even) because neither cuda_fp16.h nor torch's headers are
// there for all three compilers; every operator that stores them waits for memory anyway.

struct BFloat16 { uint16_t bits; };
struct Half { uint16_t bits; };

BANET_HD BFloat16 to_bfloat16(float value) {
  const uint32_t bits = to_bits(value);
  if (value != value) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

BANET_HD float to_float(BFloat16 value) { return from_bits(static_cast<uint32_t>(value.bits) << 16); }

BANET_HD Half to_half(float value) {
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;  // NaN
  } else if (magnitude >= 0x477ff000) {
    half = 0x7c00;  // rounds to 65520 or more: infinity
  } else if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 puts the half's last bit at the float's last bit, and the adder rounds.
    half = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000;
  } else {
    half = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

BANET_HD float to_float(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  if (rest < 0x400) {  // subnormal: rest * 2^-24
    const float value_of = static_cast<float>(rest) * 5.9604644775390625e-8f;
    return sign ? -value_of : value_of;
  }
  return from_bits(sign | ((rest << 13) + 0x38000000));
}

BANET_HD float to_float(float value) { return value; }
BANET_HD double to_float(double value) { return value; }

template <typename T> struct Store;
template <> struct Store<float> { static BANET_HD float of(float value) { return value; } };
template <> struct Store<double> { static BANET_HD double of(double value) { return value; } };
template <> struct Store<Half> { static BANET_HD Half of(float value) { return to_half(value); } };
template <> struct Store<BFloat16> { static BANET_HD BFloat16 of(float value) { return to_bfloat16(value); } };

// --- samples -----------------------------------------------------------------------------------------

// floor(x + 0.5) into 0..peak; x is never NaN here (alpha is cleaned on loading).
BANET_HD int quantise(float value, float peak) {
  return static_cast<int>(clamp(value + 0.5f, 0.0f, peak));  // not negative: truncation is floor
}

// Alpha as the operators take it: NaN counts as 0, so that a failed matte never shows the room.
BANET_HD float clean_alpha(float alpha) { return alpha > 0.0f ? least(alpha, 1.0f) : 0.0f; }

// --- arithmetic --------------------------------------------------------------------------------------

// e^x to 2 units in the last place, from plain arithmetic: compilers vectorise it, expf they don't.
BANET_HD float exponential(float x) {
  const float bounded = clamp(x, -87.0f, 88.0f);
  const float power = (bounded * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounded to an integer
  const float rest = (bounded - power * 0.693359375f) + power * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;  // Cephes' expf
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  sum = sum * rest * rest + rest + 1.0f;
  return x != x ? x : sum * from_bits(static_cast<uint32_t>(static_cast<int>(power) + 127) << 23);
}

BANET_HD double exponential(double x) { return ::exp(x); }

}  // namespace banet
