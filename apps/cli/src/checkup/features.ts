/** What the engine can do, found by validating the smallest module that needs each feature. */

export interface Features {
  readonly simd: boolean
  readonly relaxedSimd: boolean
  readonly sharedMemory: boolean
}

const HEADER = [0, 97, 115, 109, 1, 0, 0, 0]
const ONE_FUNCTION = [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0]

export function wasmFeatures(): Features {
  const simd = [10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]
  const relaxed = [10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11]
  return { simd: validates(simd), relaxedSimd: validates(relaxed), sharedMemory: canShare() }
}

const validates = (code: readonly number[]): boolean =>
  WebAssembly.validate(new Uint8Array([...HEADER, ...ONE_FUNCTION, ...code]))

function canShare(): boolean {
  try {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
    return memory.buffer instanceof SharedArrayBuffer
  } catch {
    return false
  }
}
