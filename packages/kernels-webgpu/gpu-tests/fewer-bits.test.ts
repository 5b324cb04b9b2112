/** Products whose input is rounded to bytes and, where the adapter has it, to f16. */

import { describeKernels } from '@lowbit/testing'
import { PLAIN } from '../src/gpu/device.ts'
import { webgpu } from '../src/index.ts'
import { adapterFeatures } from './features.ts'

const choices = {
  ...PLAIN,
  ...({ vectorInt8: 'dots', matrixInt8: 'dots' } as const),
  ...((await adapterFeatures()).includes('shader-f16') && ({ matrixF16: 'f16' } as const)),
}
describeKernels('webgpu, x in fewer bits', () => webgpu({ choices }), { only: ['matmul'] })
