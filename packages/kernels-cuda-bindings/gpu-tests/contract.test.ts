/** The contract of kernels on a real GPU, as the emulated one keeps it: `npm run test:cuda`. */

import { describeKernels } from '@lowbit/testing'
import { cuda } from '../src/index.ts'

describeKernels('cuda', () => cuda())
