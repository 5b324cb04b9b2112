/** The contract of kernels by subgroups, where the adapter has them. */

import { describeKernels } from '@lowbit/testing'
import { it } from 'vitest'
import { PLAIN } from '../src/gpu/device.ts'
import { webgpu } from '../src/index.ts'
import { adapterFeatures } from './features.ts'

const choices = {
  ...PLAIN,
  ...({ product: 'subgroups', vector: 'subgroups', matrix: 'subgroups' } as const),
}
if ((await adapterFeatures()).includes('subgroups')) {
  describeKernels('webgpu, by subgroups', () => webgpu({ choices }))
} else it.skip('webgpu, by subgroups: the adapter has none', () => {})
