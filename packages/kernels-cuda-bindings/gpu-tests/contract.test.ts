/** The contract of kernels on a real GPU, as the emulated one keeps it: `npm run test:cuda`. */

import { describeKernels } from '@lowbit/testing'
import { LACKING_ON_CUDA } from '@lowbit/testing/checks'
import { cuda } from '../src/index.ts'

describeKernels('cuda', () => cuda(), { skip: LACKING_ON_CUDA })
