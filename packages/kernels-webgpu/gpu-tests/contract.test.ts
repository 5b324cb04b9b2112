/** The contract of kernels on a real adapter; `npm run test:webgpu` chooses the driver. */

import { describeKernels } from '@lowbit/testing'
import { NOT_YET, webgpu } from '../src/index.ts'

describeKernels('webgpu', () => webgpu(), { skip: NOT_YET })
