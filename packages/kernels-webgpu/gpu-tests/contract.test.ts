/** The contract of kernels on a real adapter, in every variant; `npm run test:webgpu` chooses the driver. */

import { describeKernels } from '@lowbit/testing'
import { webgpu } from '../src/index.ts'

describeKernels('webgpu, no optional features', () => webgpu({ features: [] }))

const { features, dispose } = await webgpu({ features: [] })
dispose()

const bySubgroups = { product: 'subgroups', vector: 'subgroups', matrix: 'subgroups' } as const
if (features.includes('subgroups')) {
  describeKernels('webgpu, by subgroups', () => webgpu({ choices: bySubgroups }))
}
