/** onnxruntime-node, as far as the bench calls it. */

import { importPeer } from '../peers.ts'

export interface OrtTensor {
  readonly data: Float32Array
  readonly dims: readonly number[]
}

export interface OrtSession {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Record<string, OrtTensor>>
  release(): Promise<void>
}

export interface Ort {
  readonly Tensor: new (
    type: string,
    data: Float32Array | BigInt64Array,
    shape: readonly number[],
  ) => OrtTensor
  readonly InferenceSession: {
    create(model: string | Uint8Array, options: object): Promise<OrtSession>
  }
}

export async function loadOrt(): Promise<Ort> {
  const module = await importPeer<{ default: Ort }>('onnxruntime-node')
  return module.default
}

export function sessionOptions(threads: number): object {
  return {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    logSeverityLevel: 3,
  }
}
