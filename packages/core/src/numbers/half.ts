/** f16 and bf16 arrays ↔ f32: the two types in which checkpoints come, fast enough for whole matrices. */

const bits = new Uint32Array(1)
const float = new Float32Array(bits.buffer)

const HALF: Float32Array = /* @__PURE__ */ (() => {
  const table = new Float32Array(65536)
  for (let code = 0; code < 65536; code++) {
    const sign = code & 0x8000 ? -1 : 1
    const exponent = (code >> 10) & 31
    const mantissa = code & 1023
    table[code] =
      exponent === 31
        ? mantissa
          ? Number.NaN
          : sign * Number.POSITIVE_INFINITY
        : exponent === 0
          ? sign * mantissa * 2 ** -24
          : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
  }
  return table
})()

export function halfToFloat(code: number): number {
  return HALF[code]
}

export function bfloatToFloat(code: number): number {
  bits[0] = code << 16
  return float[0]
}

/** Nearest f16, ties to even; overflow becomes infinity as in IEEE 754. */
export function floatToHalf(x: number): number {
  float[0] = x
  const b = bits[0]
  const sign = (b >>> 16) & 0x8000
  const magnitude = b & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 leaves the rounded count of 2^-24 in the low mantissa bits.
    float[0] = Math.abs(x) + 0.5
    return sign | (bits[0] - 0x3f000000)
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13)
}

/** Nearest bf16, ties to even. */
export function floatToBfloat(x: number): number {
  float[0] = x
  const b = bits[0]
  if ((b & 0x7fffffff) > 0x7f800000) return ((b >>> 16) | 0x40) & 0xffff
  return ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff
}

/** Bit patterns of f16 or bf16 → numbers. */
export function toFloat32(type: 'f16' | 'bf16', codes: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(codes.length)
  if (type === 'f16') {
    for (let i = 0; i < codes.length; i++) out[i] = HALF[codes[i]]
  } else {
    const words = new Uint32Array(out.buffer)
    for (let i = 0; i < codes.length; i++) words[i] = codes[i] << 16
  }
  return out
}

/** Numbers → bit patterns of f16 or bf16. */
export function fromFloat32(type: 'f16' | 'bf16', values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length)
  const convert = type === 'f16' ? floatToHalf : floatToBfloat
  for (let i = 0; i < values.length; i++) out[i] = convert(values[i])
  return out
}
