/**
 * The kernels written for reading: plain loops, sums in f64, every shape checked. Others are right when
 * they agree with these; nothing here is meant to be fast.
 */

import type { Kernels } from '@lowbit/core'
import { clusterOperations } from './clustering.ts'
import { codedOperations } from './coded.ts'
import { decoder } from './decoder.ts'
import { distributions } from './distributions.ts'
import { gradients } from './gradients.ts'
import { linearAlgebra } from './linear-algebra.ts'
import { matrixOperations } from './matrices.ts'
import { createMemory } from './memory.ts'
import { quantizing } from './quantizing.ts'
import { training } from './training.ts'
import { vectorOperations } from './vectors.ts'

export function referenceKernels(): Kernels {
  const memory = createMemory()
  const decoding = decoder(memory)
  return {
    name: 'reference',
    variant: 'plain loops, sums in f64',
    // Math.exp may differ in its last bit from one JavaScript engine to the next.
    strict: false,
    ...memory.operations,
    get bytes() {
      return memory.bytes
    },
    ...matrixOperations(memory),
    ...linearAlgebra(memory),
    ...quantizing(memory),
    ...clusterOperations(memory),
    ...vectorOperations(memory),
    ...decoding,
    ...codedOperations(memory, { ...decoding, ...linearAlgebra(memory) }),
    ...distributions(memory),
    ...gradients(memory),
    ...training(memory),
    dispose: () => memory.close(),
  }
}
