# SPDX-License-Identifier: LGPL-2.1-or-later
import pytest
from kit.own import Owner


@pytest.fixture
def own(lab):
    owner = Owner(lab)
    yield owner
    owner.lab.service.ensure()
    owner.clean()
