/** The contract of kernels on a real adapter with what every device can do; `npm run test:webgpu` chooses the driver. */

import { describeKernels } from '@lowbit/testing'
import { webgpu } from '../src/index.ts'

describeKernels('webgpu, no optional features', () => webgpu({ features: [] }))
