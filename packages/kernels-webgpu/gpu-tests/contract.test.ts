/** The contract of kernels on a real adapter, in every variant; `npm run test:webgpu` chooses the driver. */

import { describeKernels } from '@lowbit/testing'
import { LACKING_ON_WEBGPU } from '@lowbit/testing/checks'
import { PLAIN } from '../src/gpu/device.ts'
import { webgpu } from '../src/index.ts'

const lacking = { skip: LACKING_ON_WEBGPU }

describeKernels('webgpu, no optional features', () => webgpu({ features: [] }), lacking)

const { features, dispose } = await webgpu({ features: [] })
dispose()

const bySubgroups = {
  ...PLAIN,
  ...({ product: 'subgroups', vector: 'subgroups', matrix: 'subgroups' } as const),
} as const
const rounding = {
  ...PLAIN,
  ...({ vectorInt8: 'dots', matrixInt8: 'dots' } as const),
  ...(features.includes('shader-f16') && ({ matrixF16: 'f16' } as const)),
}
describeKernels('webgpu, x in fewer bits', () => webgpu({ choices: rounding }), {
  only: ['matmul'],
})
if (features.includes('subgroups')) {
  describeKernels('webgpu, by subgroups', () => webgpu({ choices: bySubgroups }), lacking)
}
